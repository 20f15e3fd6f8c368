//! `millstream catalogue`: the system on a page. Which stream feeds which function feeds which table is put together
//! ([`system`]) from the configuration and the template, and written as Markdown ([`page`]). No database is asked.

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

pub async fn run(arguments: &CatalogueArgs, session: &CommandContext) -> Result<System, CommandError> {
    let address = session.config.clone().unwrap_or_else(config_location);
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
    Ok(System::of(title(&address), files, &config, &deployment))
}

/// The stacks of SAM's configuration, `[NAME.global.parameters]` or `[NAME.deploy.parameters]` each, of which the latter has the
/// last word; `template` is that of those that name none.
fn stacks(file: &Path, template: Option<&Path>) -> Result<Vec<Stack>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let deployed = document.iter().filter_map(|(name, commands)| {
        let of = |command: &str| commands.get(command)?.get("parameters")?.as_table().cloned();
        let parameters = of("global").into_iter().chain(of("deploy")).reduce(|mut all, own| {
            all.extend(own);
            all
        });
        Some((name, parameters?))
    });
    let stack = |(name, deployed): (&String, toml::Table)| {
        let own = deployed.get("template_file").and_then(toml::Value::as_str).map(PathBuf::from);
        let template = own.or_else(|| template.map(Path::to_owned));
        let template = template.ok_or_else(|| format!("stack {name} has no template_file; set it with --template"))?;
        let given = deployed.get("parameter_overrides").map(|given| {
            given.as_table().ok_or_else(|| format!("{name}.deploy.parameters.parameter_overrides must be a table"))
        });
        let parameters = given.transpose()?.into_iter().flatten();
        Ok(Stack { template, parameters: parameters.map(|(name, value)| (name.clone(), parameter(value))).collect() })
    };
    deployed.map(stack).collect()
}

/// A value as CloudFormation gets it: lists are joined by commas.
fn parameter(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(value) => value.to_string(),
        toml::Value::Datetime(moment) => moment.to_string(),
        toml::Value::Array(values) => values.iter().map(parameter).collect::<Vec<_>>().join(","),
        toml::Value::Table(_) => String::new(),
    }
}

fn invalid(file: &Path, reason: &dyn std::fmt::Display) -> CommandError {
    CommandError::Usage(format!("{}: {reason}", file.display()))
}

/// A system is called as the folder of its configuration.
fn title(address: &str) -> String {
    let folder = address.rsplit('/').nth(1).filter(|folder| !folder.is_empty() && *folder != ".");
    folder.unwrap_or(address).to_owned()
}

impl CommandOutput for System {
    fn to_text(&self) -> String {
        page::write(self)
    }
}
