//! `millstream catalogue`: describes the system on one page. [`system`] determines from the configuration and the SAM template
//! which stream feeds which function and which table; [`page`] writes it as Markdown. The database is not queried.

mod intrinsic;
mod page;
mod system;
mod template;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use millstream::aws::Aws;
use millstream::config::config_location;
use millstream::runtime::read_config;

use crate::{CommandContext, CommandError, CommandOutput};
use system::System;
use template::{Deployment, Stack};

#[derive(Args)]
pub struct CatalogueArgs {
    /// SAM template that deploys the functions
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// SAM configuration (TOML) with the parameters; it may contain further stacks with their own templates
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
}

pub async fn run(arguments: &CatalogueArgs, context: &CommandContext) -> Result<System, CommandError> {
    let address = context.config.clone().unwrap_or_else(config_location);
    let config = read_config(&address, &Aws::default()).await?;
    let stacks = match (&arguments.parameters, &arguments.template) {
        (Some(file), template) => stacks(file, template.as_deref()).map_err(|reason| invalid(file, &reason))?,
        (None, Some(template)) => vec![Stack { template: template.clone(), parameters: BTreeMap::new() }],
        (None, None) => Vec::new(),
    };
    let files =
        [&arguments.template, &arguments.parameters].into_iter().flatten().map(|file| file.display().to_string());
    let files = std::iter::once(address.clone()).chain(files).collect();
    let deployment = Deployment::read(stacks).map_err(CommandError::Usage)?;
    Ok(System::new(title(&address), files, &config, &deployment))
}

/// Reads the stacks of a SAM configuration, each from `[NAME.global.parameters]` and `[NAME.deploy.parameters]`; the latter
/// takes precedence. `template` is the default for stacks that name none.
fn stacks(file: &Path, template: Option<&Path>) -> Result<Vec<Stack>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let stacks = document.iter().filter_map(|(name, commands)| {
        let parameters_of = |command: &str| commands.get(command)?.get("parameters")?.as_table().cloned();
        let parameters =
            parameters_of("global").into_iter().chain(parameters_of("deploy")).reduce(|mut merged, more| {
                merged.extend(more);
                merged
            });
        Some((name, parameters?))
    });
    let stack = |(name, settings): (&String, toml::Table)| {
        let named = settings.get("template_file").and_then(toml::Value::as_str).map(PathBuf::from);
        let template = named.or_else(|| template.map(Path::to_owned));
        let template = template.ok_or_else(|| format!("stack {name} has no template_file; set it with --template"))?;
        let overrides = settings.get("parameter_overrides").map(|overrides| {
            overrides.as_table().ok_or_else(|| format!("{name}.deploy.parameters.parameter_overrides must be a table"))
        });
        let parameters = overrides.transpose()?.into_iter().flatten();
        Ok(Stack { template, parameters: parameters.map(|(name, value)| (name.clone(), parameter(value))).collect() })
    };
    stacks.map(stack).collect()
}

/// Formats a value as CloudFormation receives it: lists are joined by commas.
fn parameter(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(value) => value.to_string(),
        toml::Value::Datetime(timestamp) => timestamp.to_string(),
        toml::Value::Array(values) => values.iter().map(parameter).collect::<Vec<_>>().join(","),
        toml::Value::Table(_) => String::new(),
    }
}

fn invalid(file: &Path, reason: &dyn std::fmt::Display) -> CommandError {
    CommandError::Usage(format!("{}: {reason}", file.display()))
}

/// A system is named after the folder of its configuration.
fn title(address: &str) -> String {
    let folder = address.rsplit('/').nth(1).filter(|folder| !folder.is_empty() && *folder != ".");
    folder.unwrap_or(address).to_owned()
}

impl CommandOutput for System {
    fn to_text(&self) -> String {
        page::write(self)
    }
}
