//! Words that stand in columns and in answers: an enum for each set, one decoder that refuses a word it does not know.
//!
//! A word that a later release has written is an error here, never some other word.

/// An enum whose values are words in the database and in JSON.
///
/// ```ignore
/// words! {
///     /// How an account stands with its server.
///     pub enum AccountState {
///         /// Never connected yet.
///         Connecting = "connecting",
///     }
/// }
/// ```
///
/// Gives `as_str`, `ALL`, `from_word`, and reading and writing by sqlx (as text) and serde.
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$each:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$each])* $value,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// As column and answer have it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }

            /// The value of a word; `None`: it is none of these.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::from_word(&word).ok_or_else(|| {
                    serde::de::Error::custom($crate::platform::words::unknown(stringify!($name), &word))
                })
            }
        }

        impl sqlx::postgres::PgHasArrayType for $name {
            fn array_type_info() -> sqlx::postgres::PgTypeInfo {
                <&str as sqlx::postgres::PgHasArrayType>::array_type_info()
            }
        }

        impl sqlx::Type<sqlx::Postgres> for $name {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <str as sqlx::Type<sqlx::Postgres>>::type_info()
            }
            fn compatible(ty: &sqlx::postgres::PgTypeInfo) -> bool {
                <str as sqlx::Type<sqlx::Postgres>>::compatible(ty)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Postgres> for $name {
            fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let word = <&str as sqlx::Decode<'r, sqlx::Postgres>>::decode(value)?;
                Self::from_word(word).ok_or_else(|| {
                    $crate::platform::words::unknown(stringify!($name), word).into()
                })
            }
        }

        impl sqlx::Encode<'_, sqlx::Postgres> for $name {
            fn encode_by_ref(
                &self,
                buffer: &mut sqlx::postgres::PgArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <&str as sqlx::Encode<'_, sqlx::Postgres>>::encode(self.as_str(), buffer)
            }
        }
    };
}
pub(crate) use words;

/// A word in the database that this release does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no {what} that this release knows")]
pub struct UnknownWord {
    what: &'static str,
    word: String,
}

/// The error of a decoder.
#[must_use]
pub fn unknown(what: &'static str, word: &str) -> UnknownWord {
    UnknownWord { what, word: word.chars().take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    words! {
        /// For this test.
        pub enum Fruit {
            /// One.
            Apple = "apple",
            /// Another.
            Pear = "pear",
        }
    }

    #[test]
    fn a_word_is_read_as_it_was_written_and_no_other_is_taken() {
        for fruit in Fruit::ALL {
            assert_eq!(Fruit::from_word(fruit.as_str()), Some(*fruit));
            assert_eq!(serde_json::to_value(fruit).unwrap(), fruit.to_string());
        }
        for word in ["Apple", "apple ", "", "plum"] {
            assert_eq!(Fruit::from_word(word), None, "{word}");
        }
        let long = unknown("Fruit", &"x".repeat(500)).to_string();
        assert!(long.len() < 120 && long.contains("Fruit"), "{long}");
    }
}
