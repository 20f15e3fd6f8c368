//! `millstream maintain`: runs the scheduled maintenance now.

use millstream::maintain::{MaintenanceReport, maintain};

use crate::layout::{format_count_of, wrap};
use crate::{CommandContext, CommandError, CommandOutput};

pub async fn run(context: &CommandContext) -> Result<MaintenanceReport, CommandError> {
    let (config, database) = context.app()?.config_and_database().await?;
    Ok(maintain(&config, &database).await?)
}

impl CommandOutput for MaintenanceReport {
    fn to_text(&self) -> String {
        let lists = [("created", &self.made), ("dropped", &self.dropped), ("postponed", &self.postponed)];
        let mut text = String::new();
        for (heading, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            text.push_str(&format!("{heading}\n"));
            list.iter().for_each(|entry| text.push_str(&wrap(entry, 2)));
        }
        if !self.emptied.is_empty() {
            text.push_str(&format!("emptied\n  {} slots of change logs\n", format_count_of(self.emptied.len() as u64)));
        }
        if self.forgotten > 0 {
            text.push_str(&format!("pruned\n  {} tombstones\n", format_count_of(self.forgotten)));
        }
        if text.is_empty() { "Nothing to do.".to_owned() } else { text }
    }
}
