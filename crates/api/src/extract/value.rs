//! From bytes to a JSON value, strictly: no key twice (serde_json alone would keep the last), nesting at most 128 deep.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom("a key stands twice in one object"));
            }
            let Strict(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Reads one JSON value that fills all of `bytes`.
///
/// # Errors
/// What is wrong, in words that hold nothing of the input.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
    serde_json::from_str::<Strict>(text).map(|Strict(v)| v).map_err(|e| {
        let what = match e.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => {
                "a key stands twice in one object, or a number is out of range"
            }
            _ => "a syntax error or too deep nesting",
        };
        format!("{what} at line {} column {}", e.line(), e.column())
    })
}

/// Pointers to all strings and keys with a NUL inside, at most `max`.
pub fn find_nul(value: &Value, at: &str, found: &mut Vec<String>, max: usize) {
    if found.len() >= max {
        return;
    }
    match value {
        Value::String(text) if text.contains('\0') => found.push(at.to_owned()),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                find_nul(item, &format!("{at}/{n}"), found, max);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let pointer = format!("{at}/{}", super::typed::escape(key));
                if key.contains('\0') {
                    found.push(pointer.clone());
                }
                find_nul(item, &pointer, found, max);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_keys_trailing_text_bad_utf8_and_depth_are_refused() {
        assert!(parse(br#"{"a":{"b":[1,2.5,null,"x"]}}"#).is_ok());
        for bad in [
            &b"{\"a\":1,\"a\":2}"[..],
            b"{\"o\":{\"a\":1,\"a\":1}}",
            b"{} x",
            b"",
            b"{\"a\":\"\xff\"}",
            b"nul",
            b"1e999",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse(format!("{}{}", "[".repeat(100), "]".repeat(100)).as_bytes()).is_ok());
    }

    #[test]
    fn every_nul_is_pointed_at() {
        let value = serde_json::json!({ "a": "x\0", "b": [ "ok", { "c/d": "\0" } ], "k\0": 1 });
        let mut found = Vec::new();
        find_nul(&value, "", &mut found, 10);
        found.sort();
        assert_eq!(found, ["/a", "/b/1/c~1d", "/k\0"]);
    }
}
