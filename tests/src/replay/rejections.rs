//! The documents that were rejected, by their numbers. Bounded: the first are kept, the rest are counted.

use millstream::dead_letter::DeadLetter;

use crate::system::SystemResult;

/// The number of rejections shown.
pub const REJECTIONS_MAX: usize = 20;

/// A rejected document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectedDocument {
    /// Its number in the file; for a Lambda event, the sequence number of its record.
    pub number: String,
    /// Its position among several documents in one line, from 0.
    pub sub_number: u32,
    /// The table that rejects it, if it is known.
    pub table: Option<String>,
    /// Why.
    pub reason: String,
}

/// All that were rejected.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Rejections {
    /// The first of them, in the order of the file.
    pub first: Vec<RejectedDocument>,
    /// How many there are.
    pub count: u64,
}

impl Rejections {
    /// Adds those of one batch, as the dead-letter queue holds them.
    ///
    /// # Errors
    /// Returns an error if a message is not a dead letter.
    pub fn add_dead_letters(&mut self, bodies: &[String]) -> SystemResult<()> {
        for body in bodies {
            let letter: DeadLetter = serde_json::from_str(body)?;
            // Several documents of one record may share a letter.
            self.count += letter.documents.as_ref().map_or(0, |documents| documents.count.saturating_sub(1));
            self.add(rejected_document(letter));
        }
        Ok(())
    }

    /// Adds one; the order does not matter.
    pub fn add(&mut self, document: RejectedDocument) {
        self.count += 1;
        let index = self.first.partition_point(|known| known.order() < document.order());
        if index < REJECTIONS_MAX {
            self.first.insert(index, document);
            self.first.truncate(REJECTIONS_MAX);
        }
    }
}

impl RejectedDocument {
    /// Compares decimal numbers: the longer one is larger.
    fn order(&self) -> (usize, &str, u32) {
        (self.number.len(), &self.number, self.sub_number)
    }
}

fn rejected_document(letter: DeadLetter) -> RejectedDocument {
    RejectedDocument {
        number: letter.position.sequence_number,
        sub_number: letter.position.sub_sequence_number,
        table: letter.error.table,
        reason: letter.error.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_file_are_kept_in_whatever_order_they_come() {
        let mut rejections = Rejections::default();
        for number in (1..=50_u32).rev().chain(51..=99) {
            let number = number.to_string();
            rejections.add(RejectedDocument { number, sub_number: 0, table: None, reason: String::new() });
        }
        let numbers: Vec<_> = rejections.first.iter().map(|document| document.number.parse::<u32>().unwrap()).collect();
        assert_eq!((rejections.count, numbers), (99, (1..=20).collect()));
        assert!(rejections.add_dead_letters(&["{}".to_owned()]).is_err());
    }
}
