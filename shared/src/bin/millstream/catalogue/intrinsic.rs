//! Evaluates CloudFormation's intrinsic functions, as far as a template and its parameters determine them. Values known only at
//! deployment stay as `${Name}`; a condition that cannot be decided counts as true.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The parameters, conditions and resources of a template.
pub struct Intrinsics {
    parameters: BTreeMap<String, String>,
    conditions: Map<String, Value>,
    resources: Map<String, Value>,
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

impl Intrinsics {
    /// Reads a template; parameters that are not given have their defaults.
    pub fn new(template: &Value, given: BTreeMap<String, String>) -> Self {
        let section = |name: &str| template.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        let default = |(name, parameter): (String, Value)| Some((name, text(parameter.get("Default")?)));
        let mut parameters: BTreeMap<String, String> = section("Parameters").into_iter().filter_map(default).collect();
        parameters.extend(given);
        Self { parameters, conditions: section("Conditions"), resources: section("Resources") }
    }

    /// Returns the resources that the template creates.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &Value)> {
        let is_created = |(_, resource): &(&String, &Value)| {
            let condition = resource.get("Condition").and_then(Value::as_str);
            condition.is_none_or(|condition| self.holds(condition))
        };
        self.resources.iter().filter(is_created).map(|(name, resource)| (&**name, resource))
    }

    /// Returns a value with all its functions evaluated; `None` for `AWS::NoValue`.
    pub fn value(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Array(values) => Some(values.iter().filter_map(|value| self.value(value)).collect()),
            Value::Object(members) => match members.iter().next().filter(|_| members.len() == 1) {
                Some((name, argument)) if name == "Ref" || name.starts_with("Fn::") => self.function(name, argument),
                _ => {
                    let member = |(name, value): (&String, &Value)| Some((name.clone(), self.value(value)?));
                    Some(Value::Object(members.iter().filter_map(member).collect()))
                }
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
        }
    }

    /// Returns a value as text.
    pub fn text(&self, value: &Value) -> Option<String> {
        self.value(value).map(|value| text(&value))
    }

    fn function(&self, name: &str, argument: &Value) -> Option<Value> {
        let list = argument.as_array().map_or(&[][..], Vec::as_slice);
        let resolved = match (name, list) {
            ("Ref", _) if argument.as_str() == Some("AWS::NoValue") => return None,
            ("Ref", _) => self.reference(argument.as_str().unwrap_or_default()),
            ("Fn::GetAtt", [resource, attribute]) => self.attribute(&text(resource), &text(attribute)),
            ("Fn::Sub", [template, names]) => self.substitute(&text(template), names.as_object()),
            ("Fn::Sub", _) => self.substitute(&text(argument), None),
            ("Fn::Join", [separator, parts]) => self.texts(parts).join(&text(separator)),
            ("Fn::Select", [index, parts]) => {
                let index: usize = self.text(index)?.parse().unwrap_or(0);
                self.texts(parts).get(index).cloned().unwrap_or_default()
            }
            ("Fn::Split", [separator, joined]) => {
                return Some(self.text(joined)?.split(&text(separator)).map(Value::from).collect());
            }
            ("Fn::If", [condition, then, otherwise]) => {
                return self.value(if self.holds(&text(condition)) { then } else { otherwise });
            }
            _ => format!("${{{}}}", name.trim_start_matches("Fn::")),
        };
        Some(Value::String(resolved))
    }

    /// Returns the elements of a list: a list of the template, or a parameter's comma-separated text.
    fn texts(&self, list: &Value) -> Vec<String> {
        match self.value(list) {
            Some(Value::Array(values)) => values.iter().map(text).collect(),
            Some(Value::String(list)) => list.split(',').map(|part| part.trim().to_owned()).collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
        }
    }

    /// Returns the value of a parameter, or the name of a resource if the template sets it.
    pub fn reference(&self, name: &str) -> String {
        if let Some(value) = self.parameters.get(name) {
            return value.clone();
        }
        let name_properties = [
            ("AWS::Kinesis::Stream", "Name"),
            ("AWS::DynamoDB::Table", "TableName"),
            ("AWS::Serverless::Function", "FunctionName"),
        ];
        let property = |(kind, property): (&str, &str)| {
            let resource = self.resources.get(name).filter(|resource| resource["Type"] == kind)?;
            self.text(resource.get("Properties")?.get(property)?)
        };
        name_properties.into_iter().find_map(property).unwrap_or_else(|| format!("${{{name}}}"))
    }

    /// Builds the ARN of a stream from its name; other attributes are unknown.
    fn attribute(&self, resource: &str, attribute: &str) -> String {
        let kind = self.resources.get(resource).and_then(|resource| resource["Type"].as_str()).unwrap_or_default();
        let arn = "arn:${AWS::Partition}";
        let location = "${AWS::Region}:${AWS::AccountId}";
        match (kind, attribute) {
            ("AWS::Kinesis::Stream", "Arn") => format!("{arn}:kinesis:{location}:stream/{}", self.reference(resource)),
            ("AWS::DynamoDB::Table", "StreamArn") => {
                format!("{arn}:dynamodb:{location}:table/{}/stream/*", self.reference(resource))
            }
            _ => format!("${{{resource}.{attribute}}}"),
        }
    }

    fn substitute(&self, template: &str, names: Option<&Map<String, Value>>) -> String {
        let mut parts = template.split("${");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let Some((name, rest)) = part.split_once('}') else {
                text.push_str(&format!("${{{part}"));
                continue;
            };
            let value = names.and_then(|names| names.get(name)).and_then(|value| self.text(value));
            text.push_str(&value.unwrap_or_else(|| match (name.strip_prefix('!'), name.split_once('.')) {
                (Some(literal), _) => format!("${{{literal}}}"),
                (None, Some((resource, attribute))) => self.attribute(resource, attribute),
                (None, None) => self.reference(name),
            }));
            text.push_str(rest);
        }
        text
    }

    fn holds(&self, condition: &str) -> bool {
        self.conditions.get(condition).and_then(|expression| self.decide(expression)).unwrap_or(true)
    }

    fn decide(&self, expression: &Value) -> Option<bool> {
        let (name, argument) = expression.as_object()?.iter().next()?;
        let list = argument.as_array().map_or(&[][..], Vec::as_slice);
        match (&**name, list) {
            ("Condition", _) => self.decide(self.conditions.get(argument.as_str()?)?),
            ("Fn::Equals", [a, b]) => {
                let (a, b) = (self.text(a)?, self.text(b)?);
                // A value known only at deployment may be anything.
                (!a.contains("${") && !b.contains("${")).then(|| a == b)
            }
            ("Fn::Not", [condition]) => self.decide(condition).map(|holds| !holds),
            ("Fn::And", all) => all
                .iter()
                .map(|condition| self.decide(condition))
                .collect::<Option<Vec<_>>>()
                .map(|all| !all.contains(&false)),
            ("Fn::Or", any) => any
                .iter()
                .map(|condition| self.decide(condition))
                .collect::<Option<Vec<_>>>()
                .map(|any| any.contains(&true)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::yaml;

    const TEMPLATE: &str = "
Parameters:
  Stream: {Type: String, Default: sportsbook}
  Tables: {Type: CommaDelimitedList, Default: 'a, b'}
  Archive: {Type: String}
Conditions:
  HasArchive: !Not [!Equals [!Ref Archive, '']]
  IsElsewhere: !Equals [!Ref 'AWS::AccountId', '1']
  HasStream: !And [!Condition HasArchive, !Not [!Equals [!Ref Stream, '']]]
Resources:
  Events: {Type: 'AWS::Kinesis::Stream', Properties: {Name: !Sub '${Stream}-events'}}
  Nothing: {Type: 'AWS::SQS::Queue', Condition: HasArchive}
";

    fn resolved(expression: &str, parameters: &[(&str, &str)]) -> String {
        let given = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let intrinsics = Intrinsics::new(&yaml::read(TEMPLATE).unwrap(), given);
        intrinsics.text(&yaml::read(expression).unwrap()).unwrap_or_else(|| "(nothing)".to_owned())
    }

    #[test]
    fn functions_are_evaluated_if_the_template_contains_the_values() {
        for (expression, text) in [
            ("!Ref Stream", "sportsbook"),
            ("{Ref: Stream}", "sportsbook"),
            (
                "!GetAtt Events.Arn",
                "arn:${AWS::Partition}:kinesis:${AWS::Region}:${AWS::AccountId}:stream/sportsbook-events",
            ),
            ("!Sub 'arn:x:stream/${Stream}'", "arn:x:stream/sportsbook"),
            ("!Sub ['${a}/${!b}', {a: !Ref Events}]", "sportsbook-events/${b}"),
            (
                "!Sub '${Events.Arn}'",
                "arn:${AWS::Partition}:kinesis:${AWS::Region}:${AWS::AccountId}:stream/sportsbook-events",
            ),
            ("!Join [':', [a, !Ref Stream]]", "a:sportsbook"),
            ("!Select [1, !Ref Tables]", "b"),
            ("!Select [1, !Split ['/', 'a/b']]", "b"),
            ("!If [HasArchive, yes, !Ref 'AWS::NoValue']", "(nothing)"),
            ("!ImportValue elsewhere", "${ImportValue}"),
            ("!Ref Unknown", "${Unknown}"),
        ] {
            assert_eq!(resolved(expression, &[("Archive", "")]), text, "{expression}");
        }
        assert_eq!(resolved("!If [HasStream, yes, no]", &[("Archive", "bucket")]), "yes");
        for undecided in ["Undecided", "IsElsewhere"] {
            assert_eq!(resolved(&format!("!If [{undecided}, yes, no]"), &[]), "yes");
        }
    }
}
