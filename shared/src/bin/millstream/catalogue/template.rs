//! What is deployed: the functions of the stacks' templates, including nested ones, and what starts each of them. Other resources
//! are ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::intrinsic::Intrinsics;
use super::yaml;

/// Maximum nesting of stacks, so that a template that nests itself terminates.
const DEPTH_MAX: usize = 8;

/// A template and its deployment parameters; missing ones have their defaults.
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
    /// Separate event source mappings and scheduled state machines, with the name of the function that they start.
    mappings: Vec<(String, Start)>,
}

/// A function.
pub struct Function {
    /// Its binary or, if that is not set, its logical ID.
    pub name: String,
    /// Its description in the template.
    pub description: String,
    /// What starts it.
    pub starts: Vec<Start>,
    /// Whether it has a dead-letter queue.
    pub dead_letters: bool,
    /// Whether it is enabled: a reserved concurrency of 0 disables it.
    pub enabled: bool,
    /// The name by which mappings refer to it.
    deployed_as: String,
}

/// What starts a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// Records of a stream.
    Stream {
        /// Kind of stream.
        kind: &'static str,
        /// Its ARN, as far as the template determines it.
        arn: String,
    },
    /// A schedule.
    Schedule(String),
    /// Another event source, by its SAM type.
    Other(String),
}

impl Deployment {
    /// Reads the stacks' templates.
    ///
    /// # Errors
    /// Returns an error with the file's name if it cannot be read or is not a template.
    pub fn read(stacks: Vec<Stack>) -> Result<Self, String> {
        let mut deployment = Self::default();
        for stack in stacks {
            deployment.add(stack, 0)?;
        }
        for (name, start) in std::mem::take(&mut deployment.mappings) {
            let targets = deployment.functions.iter_mut().filter(|function| function.deployed_as == name);
            targets.for_each(|function| function.starts.push(start.clone()));
        }
        Ok(deployment)
    }

    fn add(&mut self, stack: Stack, depth: usize) -> Result<(), String> {
        let file = stack.template;
        let invalid = |reason: String| format!("{}: {reason}", file.display());
        let text = std::fs::read_to_string(&file).map_err(|error| invalid(error.to_string()))?;
        let template = yaml::read(&text).map_err(invalid)?;
        if template.get("Resources").and_then(Value::as_object).is_none() {
            return Err(invalid("not a CloudFormation template: Resources is missing".to_owned()));
        }
        let intrinsics = Intrinsics::new(&template, stack.parameters);
        for (id, resource) in intrinsics.resources() {
            let properties = &resource["Properties"];
            match resource["Type"].as_str().unwrap_or_default() {
                "AWS::Serverless::Function" => {
                    let global = &template["Globals"]["Function"];
                    self.functions.push(function(id, resource, global, &intrinsics));
                }
                "AWS::Serverless::StateMachine" => self.mappings.extend(state_machine(properties, &intrinsics)),
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

/// Returns a nested stack, if its template is a local file.
fn nested(outer: &Path, properties: &Value, intrinsics: &Intrinsics) -> Option<Stack> {
    let location = properties["TemplateURL"].as_str().or_else(|| properties["Location"].as_str())?;
    let template = outer.parent().unwrap_or(Path::new("")).join(location);
    let given = properties["Parameters"].as_object().cloned().unwrap_or_default();
    let parameters = given.iter().filter_map(|(name, value)| Some((name.clone(), intrinsics.text(value)?)));
    template.is_file().then(|| Stack { template, parameters: parameters.collect() })
}

/// The schedules of a state machine, each with the name of a function that it runs.
fn state_machine(properties: &Value, intrinsics: &Intrinsics) -> Vec<(String, Start)> {
    let functions = properties["DefinitionSubstitutions"].as_object().into_iter().flatten();
    let functions: Vec<String> = functions.filter_map(|(_, name)| intrinsics.text(name)).collect();
    let starts: Vec<Start> = starts(properties, intrinsics);
    functions.iter().flat_map(|name| starts.iter().map(|start| (name.clone(), start.clone()))).collect()
}

/// What starts a function or a state machine, by its `Events`.
fn starts(properties: &Value, intrinsics: &Intrinsics) -> Vec<Start> {
    let events = intrinsics.value(&properties["Events"]);
    events.as_ref().and_then(Value::as_object).into_iter().flatten().filter_map(|(_, event)| start(event)).collect()
}

fn function(id: &str, resource: &Value, global: &Value, intrinsics: &Intrinsics) -> Function {
    let properties = &resource["Properties"];
    let text = |value: Option<&Value>| value.and_then(|value| intrinsics.text(value));
    let has_queue = |function: &Value| {
        let url = text(function["Environment"]["Variables"].get("DEAD_LETTER_QUEUE_URL"));
        url.is_some_and(|url| !url.is_empty())
    };
    Function {
        name: text(resource["Metadata"]["BuildProperties"].get("Binary")).unwrap_or_else(|| id.to_owned()),
        description: text(properties.get("Description")).unwrap_or_default(),
        starts: starts(properties, intrinsics),
        dead_letters: has_queue(properties) || has_queue(global),
        enabled: text(properties.get("ReservedConcurrentExecutions")).as_deref() != Some("0"),
        deployed_as: intrinsics.reference(id),
    }
}

/// Reads one of a function's `Events`; `None` if it is disabled.
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

/// Reads a separate event source mapping; returns its function's name and what starts it.
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
