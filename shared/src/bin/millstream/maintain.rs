//! `millstream maintain`: the scheduled upkeep, now.

use millstream::maintain::{Upkeep, maintain};

use crate::layout::{count_of, wrap};
use crate::{Answer, Session, Unanswered};

pub async fn run(session: &Session) -> Result<Upkeep, Unanswered> {
    let (config, database) = session.app()?.system().await?;
    Ok(maintain(&config, &database).await?)
}

impl Answer for Upkeep {
    fn for_people(&self) -> String {
        let lists = [("made", &self.made), ("dropped", &self.dropped), ("postponed", &self.postponed)];
        let mut text = String::new();
        for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            text.push_str(&format!("{what}\n"));
            list.iter().for_each(|one| text.push_str(&wrap(one, 2)));
        }
        if self.forgotten > 0 {
            text.push_str(&format!("forgotten\n  {} old deletes\n", count_of(self.forgotten)));
        }
        if text.is_empty() { "Nothing was due.".to_owned() } else { text }
    }
}
