//! What is deployed: the functions of the stacks' templates, nested ones included, and what starts each of them. Everything else
//! in a template is passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::intrinsic::Intrinsics;
use super::yaml;

/// CloudFormation itself nests no deeper than a few stacks; a template that nests itself must come to an end.
const DEPTH_MAX: usize = 8;

/// A template, and the parameters that it is deployed with; those that are not given have their defaults.
pub struct Stack {
    /// The template's file.
    pub template: PathBuf,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
}

/// Functions and what starts them.
#[derive(Default)]
pub struct Deployment {
    /// In the order of the templates.
    pub functions: Vec<Function>,
    /// Mappings that stand by themselves, with the name of the function that they start.
    mappings: Vec<(String, Start)>,
}

/// A function.
pub struct Function {
    /// What it is called: its binary, or else its logical name.
    pub name: String,
    /// What the template says that it does.
    pub description: String,
    /// What starts it.
    pub starts: Vec<Start>,
    /// Whether it is told of a queue for dead letters.
    pub dead_letters: bool,
    /// Whether it may run at all: without any concurrency it is switched off.
    pub on: bool,
    /// What mappings call it.
    deployed_as: String,
}

/// What starts a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// Records of a stream.
    Stream {
        /// What kind of stream it is.
        kind: &'static str,
        /// Its ARN, as far as the template tells.
        arn: String,
    },
    /// The clock.
    Schedule(String),
    /// Something else, by SAM's name for it.
    Other(String),
}

impl Deployment {
    /// Reads the stacks' templates.
    ///
    /// # Errors
    /// A file that cannot be read, or is no template; with its name.
    pub fn read(stacks: Vec<Stack>) -> Result<Self, String> {
        let mut deployment = Self::default();
        for stack in stacks {
            deployment.add(stack, 0)?;
        }
        for (name, start) in std::mem::take(&mut deployment.mappings) {
            let meant = deployment.functions.iter_mut().filter(|function| function.deployed_as == name);
            meant.for_each(|function| function.starts.push(start.clone()));
        }
        Ok(deployment)
    }

    fn add(&mut self, stack: Stack, depth: usize) -> Result<(), String> {
        let file = stack.template;
        let wrong = |reason: String| format!("{}: {reason}", file.display());
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(error.to_string()))?;
        let template = yaml::read(&text).map_err(wrong)?;
        if template.get("Resources").and_then(Value::as_object).is_none() {
            return Err(wrong("not a CloudFormation template: Resources is missing".to_owned()));
        }
        let intrinsics = Intrinsics::new(&template, stack.parameters);
        for (id, resource) in intrinsics.resources() {
            let properties = &resource["Properties"];
            match resource["Type"].as_str().unwrap_or_default() {
                "AWS::Serverless::Function" => {
                    let global = &template["Globals"]["Function"];
                    self.functions.push(function(id, resource, global, &intrinsics));
                }
                "AWS::Lambda::EventSourceMapping" => self.mappings.extend(mapping(properties, &intrinsics)),
                "AWS::CloudFormation::Stack" | "AWS::Serverless::Application" if depth < DEPTH_MAX => {
                    let nested = nested(&file, properties, &intrinsics);
                    nested.map_or(Ok(()), |nested| self.add(nested, depth + 1))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A stack within a stack, if its template is a file here.
fn nested(outer: &Path, properties: &Value, intrinsics: &Intrinsics) -> Option<Stack> {
    let location = properties["TemplateURL"].as_str().or_else(|| properties["Location"].as_str())?;
    let template = outer.parent().unwrap_or(Path::new("")).join(location);
    let given = properties["Parameters"].as_object().cloned().unwrap_or_default();
    let parameters = given.iter().filter_map(|(name, value)| Some((name.clone(), intrinsics.text(value)?)));
    template.is_file().then(|| Stack { template, parameters: parameters.collect() })
}

fn function(id: &str, resource: &Value, global: &Value, intrinsics: &Intrinsics) -> Function {
    let properties = &resource["Properties"];
    let text = |value: Option<&Value>| value.and_then(|value| intrinsics.text(value));
    let starts = intrinsics.value(&properties["Events"]);
    let starts = starts.as_ref().and_then(Value::as_object).into_iter().flatten().filter_map(|(_, event)| start(event));
    let has_queue = |function: &Value| {
        let url = text(function["Environment"]["Variables"].get("DEAD_LETTER_QUEUE_URL"));
        url.is_some_and(|url| !url.is_empty())
    };
    Function {
        name: text(resource["Metadata"]["BuildProperties"].get("Binary")).unwrap_or_else(|| id.to_owned()),
        description: text(properties.get("Description")).unwrap_or_default(),
        starts: starts.collect(),
        dead_letters: has_queue(properties) || has_queue(global),
        on: text(properties.get("ReservedConcurrentExecutions")).as_deref() != Some("0"),
        deployed_as: intrinsics.reference(id),
    }
}

/// One of a function's own `Events`; `None` if it is switched off.
fn start(event: &Value) -> Option<Start> {
    let properties = &event["Properties"];
    let is = |key: &str, value: &str| properties[key].as_str() == Some(value);
    if is("Enabled", "false") || is("State", "DISABLED") {
        return None;
    }
    let text = |key: &str| properties[key].as_str().map(str::to_owned);
    Some(match event["Type"].as_str()? {
        "Kinesis" => Start::Stream { kind: "Kinesis", arn: text("Stream")? },
        "DynamoDB" => Start::Stream { kind: "DynamoDB", arn: text("Stream")? },
        "Schedule" => Start::Schedule(text("Schedule")?),
        "ScheduleV2" => Start::Schedule(text("ScheduleExpression")?),
        other => Start::Other(other.to_owned()),
    })
}

/// A mapping that stands by itself, and what it calls its function.
fn mapping(properties: &Value, intrinsics: &Intrinsics) -> Option<(String, Start)> {
    let function = intrinsics.text(properties.get("FunctionName")?)?;
    let arn = intrinsics.text(properties.get("EventSourceArn")?)?;
    let start = match &arn {
        arn if arn.contains(":kinesis:") => Start::Stream { kind: "Kinesis", arn: arn.clone() },
        arn if arn.contains(":dynamodb:") => Start::Stream { kind: "DynamoDB", arn: arn.clone() },
        _ => Start::Other(arn),
    };
    Some((function, start))
}
