//! From a JSON value (or query text) to a type, with a JSON Pointer to every fault that can be found.
//!
//! serde stops at the first fault. To find the next one, the place of a fault is remembered and, on another pass, filled
//! with whatever the type asks for; passes end when nothing new turns up. Unknown fields are compared against the list
//! that a struct declares, so a request type need not say `deny_unknown_fields`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use crate::error::FieldError;

const MAX_PASSES: usize = 40;
/// Fillers for a place with a fault, tried in turn: whatever text form the type asks for.
const FILLERS: [&str; 4] =
    ["", "00000000-0000-0000-0000-000000000000", "2000-01-01T00:00:00Z", "a@example.org"];

/// Escapes one token of a JSON Pointer (RFC 6901 §3).
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[derive(Debug)]
struct Fault {
    pointer: Option<String>,
    /// Appended to the pointer of the object it is missing from.
    missing: Option<&'static str>,
    /// The kind of what was found where something else belongs.
    found: Option<&'static str>,
    code: &'static str,
    detail: String,
}

impl Fault {
    fn new(code: &'static str, detail: String) -> Self {
        Self { pointer: None, missing: None, found: None, code, detail }
    }

    /// What a visitor expects is called by its name in Rust (`struct Login`, `u16`), which is nobody's business: of a
    /// fault at this very place the words are ours.
    fn expecting(mut self, expected: &str) -> Self {
        if self.pointer.is_none()
            && let Some(found) = self.found.take()
        {
            self.detail = format!("{expected} is expected, not {found}");
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new("invalid", message.to_string())
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        // What was found may be a secret: only its kind is told.
        let (code, kind) = match found {
            Unexpected::Unit | Unexpected::Option => ("null", "null"),
            Unexpected::Bool(_) => ("wrong-type", "a boolean"),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => {
                ("wrong-type", "a number")
            }
            Unexpected::Str(_) | Unexpected::Char(_) => ("wrong-type", "a string"),
            Unexpected::Seq => ("wrong-type", "an array"),
            _ => ("wrong-type", "an object"),
        };
        let detail = format!("{expected} is expected, not {kind}");
        Self { found: Some(kind), ..Self::new(code, detail) }
    }
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("invalid", format!("{expected} is expected"))
    }
    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::new("missing", "this field is required".to_owned()) }
    }
    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new("invalid", format!("one of {} is expected", expected.join(", ")))
    }
}

#[derive(Default)]
struct Pass {
    /// What text stands for numbers and booleans: queries and paths.
    text: bool,
    at: RefCell<Vec<String>>,
    filled: BTreeMap<String, usize>,
    unknown: RefCell<BTreeSet<String>>,
}

impl Pass {
    fn pointer(&self) -> String {
        self.at.borrow().iter().fold(String::new(), |all, token| format!("{all}/{token}"))
    }

    fn inside<T>(&self, token: &str, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        self.at.borrow_mut().push(escape(token));
        let done = work().map_err(|mut fault| {
            if fault.pointer.is_none() {
                let at = self.pointer();
                fault.pointer = Some(match fault.missing.take() {
                    Some(field) => format!("{at}/{}", escape(field)),
                    None => at,
                });
            }
            fault
        });
        self.at.borrow_mut().pop();
        done
    }
}

/// Reads `value` as a `T`.
///
/// # Errors
/// All faults that could be found, at least one.
pub fn read<T: DeserializeOwned>(value: &Value, text: bool) -> Result<T, Vec<FieldError>> {
    let mut pass = Pass { text, ..Pass::default() };
    let mut faults: BTreeMap<String, FieldError> = BTreeMap::new();
    for _ in 0..MAX_PASSES {
        let outcome = T::deserialize(De { value: Some(value), pass: &pass });
        for pointer in pass.unknown.take() {
            let fault = FieldError::new(pointer.clone(), "unknown-field", "there is no such field");
            faults.entry(pointer).or_insert(fault);
        }
        let fault = match outcome {
            Ok(read) if faults.is_empty() => return Ok(read),
            Ok(_) => break,
            Err(fault) => fault,
        };
        let pointer = match (fault.pointer, fault.missing) {
            (Some(pointer), _) => pointer,
            (None, Some(field)) => format!("/{}", escape(field)),
            (None, None) => String::new(),
        };
        let inner = lies_in_filled(&pointer, &pass.filled);
        let tries = pass.filled.entry(pointer.clone()).and_modify(|n| *n += 1).or_insert(0);
        let exhausted = *tries >= FILLERS.len() || pointer.is_empty();
        if *tries == 0 && !inner {
            faults.entry(pointer.clone()).or_insert(FieldError::new(pointer, fault.code, fault.detail));
        }
        if exhausted {
            break;
        }
    }
    Err(faults.into_values().collect())
}

/// Whether `pointer` lies below a filled place: its faults are the filling's, not the client's.
fn lies_in_filled(pointer: &str, filled: &BTreeMap<String, usize>) -> bool {
    filled.keys().any(|place| pointer.strip_prefix(place.as_str()).is_some_and(|rest| rest.starts_with('/')))
}

/// A value at the current place of a pass; nothing stands for a field that is missing and filled.
#[derive(Clone, Copy)]
struct De<'a> {
    value: Option<&'a Value>,
    pass: &'a Pass,
}

impl De<'_> {
    fn filler(&self) -> Option<&'static str> {
        let tries = self.pass.filled.get(&self.pass.pointer())?;
        FILLERS.get(*tries).copied()
    }

    /// Of an array the derived visitors of structs would take the elements for the fields, in their order.
    fn object<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Some(Value::Array(_)) => Err(Fault::invalid_type(Unexpected::Seq, &"an object")),
            _ => self.deserialize_any(visitor).map_err(|fault| fault.expecting("an object")),
        }
    }

    fn fields(&self, fields: &'static [&'static str], object: &Map<String, Value>) {
        let known = |key: &&String| !fields.contains(&key.as_str());
        let at = self.pass.pointer();
        let strangers = object.keys().filter(known).map(|key| format!("{at}/{}", escape(key)));
        self.pass.unknown.borrow_mut().extend(strangers);
    }
}

macro_rules! scalars {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            if self.filler().is_some() {
                return visitor.$visit(<$type>::default());
            }
            match self.value {
                Some(Value::String(text)) if self.pass.text => match text.parse::<$type>() {
                    Ok(read) => visitor.$visit(read),
                    Err(_) => Err(Fault::new("invalid", concat!($expected, " is expected").to_owned())),
                },
                _ => self.deserialize_any(visitor).map_err(|fault| match fault {
                    // Out of range, or a fraction.
                    Fault { found: None, code: "invalid", pointer: None, .. } => {
                        Fault::new("invalid", concat!($expected, " is expected").to_owned())
                    }
                    other => other.expecting($expected),
                }),
            }
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.deserialize_any(visitor).map_err(|fault| fault.expecting("a string"))
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(filler) = self.filler() {
            return visitor.visit_str(filler);
        }
        match self.value {
            None | Some(Value::Null) => visitor.visit_unit(),
            Some(Value::Bool(b)) => visitor.visit_bool(*b),
            Some(Value::Number(n)) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(u), _, _) => visitor.visit_u64(u),
                (_, Some(i), _) => visitor.visit_i64(i),
                (_, _, Some(f)) => visitor.visit_f64(f),
                _ => Err(Fault::custom("a number is out of range")),
            },
            Some(Value::String(text)) => visitor.visit_str(text),
            Some(Value::Array(items)) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), pass: self.pass })
            }
            Some(Value::Object(map)) => visitor.visit_map(Entries::new(map, self.pass, None)),
        }
    }

    scalars! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "a whole number from -2147483648 to 2147483647";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0 up";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    texts! { deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            _ if self.filler().is_some() => visitor.visit_none(),
            None | Some(Value::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.filler().is_some() {
            return visitor.visit_seq(Items { items: [].iter().enumerate(), pass: self.pass });
        }
        match self.value {
            Some(Value::Object(_)) => Err(Fault::invalid_type(Unexpected::Map, &"an array")),
            _ => self.deserialize_any(visitor).map_err(|fault| fault.expecting("an array")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.filler().is_some() {
            return visitor.visit_map(Entries::new(&Map::new(), self.pass, None));
        }
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            _ if self.filler().is_some() => {
                visitor.visit_map(Entries::new(&Map::new(), self.pass, Some(fields)))
            }
            Some(Value::Object(map)) => {
                self.fields(fields, map);
                visitor.visit_map(Entries::new(map, self.pass, Some(fields)))
            }
            _ => self.object(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let name = match self.value {
            _ if self.filler().is_some() => variants.first().copied().unwrap_or_default(),
            Some(Value::String(text)) => text.as_str(),
            _ => {
                let expected = format!("one of {}", variants.join(", "));
                return self.deserialize_any(visitor).map_err(|fault| fault.expecting(&expected));
            }
        };
        visitor.visit_enum(Variant { name, pass: self.pass })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        true
    }

    forward_to_deserialize_any! {
        i128 u128 unit unit_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    pass: &'a Pass,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((n, value)) = self.items.next() else { return Ok(None) };
        let (pass, value) = (self.pass, Some(value));
        pass.inside(&n.to_string(), || seed.deserialize(De { value, pass })).map(Some)
    }
}

/// The entries of an object, without those a struct does not know, and with those it missed on an earlier pass.
struct Entries<'a> {
    left: Vec<(&'a str, Option<&'a Value>)>,
    value: Option<(&'a str, Option<&'a Value>)>,
    pass: &'a Pass,
}

impl<'a> Entries<'a> {
    fn new(map: &'a Map<String, Value>, pass: &'a Pass, fields: Option<&'static [&'static str]>) -> Self {
        let known = |key: &str| fields.is_none_or(|f| f.contains(&key));
        let mut left: Vec<_> =
            map.iter().filter(|(k, _)| known(k)).map(|(k, v)| (k.as_str(), Some(v))).collect();
        let at = pass.pointer();
        let missed = |f: &&&'static str| {
            !map.contains_key(**f) && pass.filled.contains_key(&format!("{at}/{}", escape(f)))
        };
        left.extend(fields.into_iter().flatten().filter(missed).map(|f| (*f, None)));
        left.reverse();
        Self { left, value: None, pass }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.left.pop() else { return Ok(None) };
        self.value = Some((key, value));
        let pass = self.pass;
        pass.inside(key, || seed.deserialize(serde::de::value::StrDeserializer::new(key))).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.value.take().ok_or_else(|| Fault::custom("a value without a key"))?;
        let pass = self.pass;
        pass.inside(key, || seed.deserialize(De { value, pass }))
    }
}

struct Variant<'a> {
    name: &'a str,
    pass: &'a Pass,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name = seed.deserialize(serde::de::value::StrDeserializer::<'_, Fault>::new(self.name))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;
    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(De { value: None, pass: self.pass })
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::custom("a plain word is expected"))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(Fault::custom("a plain word is expected"))
    }
}

#[cfg(test)]
mod tests;
