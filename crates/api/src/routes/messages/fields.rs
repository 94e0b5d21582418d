//! `?fields=`: an object cut down to the fields a client names.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::error::{ApiError, FieldError};

/// The fields that are wanted; all of them without a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Option<BTreeSet<String>>);

/// What is left of an object.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Cut<T> {
    /// All of it.
    Whole(T),
    /// Some of its fields.
    Part(Value),
}

impl Fields {
    /// Reads a comma-separated list of names out of `known`.
    pub(super) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let Some(text) = text else { return Ok(Self(None)) };
        let names: BTreeSet<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Self(Some(names))),
            Some(name) => {
                let detail = format!("fields: there is no field {name:?}");
                let fault = FieldError::new("/fields", "unknown", detail.clone());
                Err(ApiError::invalid_parameter(detail).with_errors([fault]))
            }
        }
    }

    /// Whether a list names this field.
    pub(super) fn name(&self, field: &str) -> bool {
        self.0.as_ref().is_some_and(|names| names.contains(field))
    }

    /// Whether this field will be in the answer.
    pub(super) fn keep(&self, field: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(field))
    }

    /// `object` with the wanted fields and its id. Without a list it is left as it is, and so written as JSON once.
    pub(super) fn cut<T: Serialize>(&self, object: T) -> Result<Cut<T>, ApiError> {
        let Some(names) = &self.0 else { return Ok(Cut::Whole(object)) };
        let mut value = serde_json::to_value(object).map_err(ApiError::internal)?;
        if let Some(map) = value.as_object_mut() {
            map.retain(|name, _| name == "id" || names.contains(name));
        }
        Ok(Cut::Part(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_fields_and_the_id_are_left() {
        let object = serde_json::json!({ "id": 1, "a": 2, "b": 3 });
        let fields = Fields::parse(Some("a, id"), &["id", "a", "b"]).unwrap();
        let cut = |fields: &Fields| serde_json::to_value(fields.cut(&object).unwrap()).unwrap();
        assert_eq!(cut(&fields), serde_json::json!({ "id": 1, "a": 2 }));
        assert!(fields.name("a") && fields.keep("a") && !fields.keep("b"));
        let all = Fields::parse(None, &[]).unwrap();
        assert!(all.keep("b") && !all.name("b"));
        assert_eq!(cut(&all), object);
        for bad in ["c", "", "a,,b"] {
            assert_eq!(
                Fields::parse(Some(bad), &["a", "b"]).unwrap_err().code(),
                "invalid-parameter",
                "{bad}"
            );
        }
    }
}
