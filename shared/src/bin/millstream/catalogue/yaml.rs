//! Reads YAML with CloudFormation's short tags as the JSON form that CloudFormation converts it to: `!Ref a` is `{"Ref": "a"}`.
//! Scalars stay text, because YAML must not interpret a value such as `010`.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// Reads one document.
pub fn read(text: &str) -> Result<Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    documents.into_iter().next().map(value).ok_or_else(|| "the file is empty".to_owned())
}

fn value(node: Yaml<'_>) -> Value {
    match node {
        Yaml::Representation(text, _, tag) => match tag {
            Some(tag) => tagged(&tag.suffix, Value::String(text.into_owned())),
            None => Value::String(text.into_owned()),
        },
        Yaml::Value(scalar) => scalar_value(scalar),
        Yaml::Sequence(nodes) => Value::Array(nodes.into_iter().map(value).collect()),
        Yaml::Mapping(pairs) => {
            let entry = |(key, node)| Some((value(key).as_str()?.to_owned(), value(node)));
            Value::Object(pairs.into_iter().filter_map(entry).collect())
        }
        Yaml::Tagged(tag, node) => tagged(&tag.suffix, value(*node)),
        Yaml::Alias(_) | Yaml::BadValue => Value::Null,
    }
}

fn scalar_value(scalar: Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::String(value.to_string()),
        Scalar::Integer(value) => Value::String(value.to_string()),
        Scalar::FloatingPoint(value) => Value::String(value.to_string()),
        Scalar::String(text) => Value::String(text.into_owned()),
    }
}

/// Expands a short tag: <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html>.
fn tagged(tag: &str, value: Value) -> Value {
    let (name, value) = match (tag, value) {
        ("Ref" | "Condition", value) => (tag.to_owned(), value),
        ("GetAtt", Value::String(path)) => {
            let (resource, attribute) = path.split_once('.').unwrap_or((&path, ""));
            ("Fn::GetAtt".to_owned(), Value::from(vec![resource, attribute]))
        }
        (_, value) => (format!("Fn::{tag}"), value),
    };
    Value::Object(Map::from_iter([(name, value)]))
}
