//! The operator's commands, through the real program.

mod catalogue;
mod plan;
mod replicated;
mod restored;
mod status;
mod totals;
mod transform;

use millstream::clock::now;
use millstream::timestamp::Timestamp;
use millstream_tests::process::target;
use millstream_tests::program::Ran;

use crate::golden::{HOW_TO_ACCEPT, is_expected};

/// A configuration in a file of its own.
fn config_file(name: &str, text: &str) -> String {
    let file = target().join(format!("test-{name}.toml"));
    std::fs::write(&file, text).unwrap();
    file.to_string_lossy().into_owned()
}

fn environment(config: &str, url: &str) -> Vec<(String, String)> {
    [("MILLSTREAM_CONFIG", config), ("DATABASE_URL", url)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The date this many days from today.
fn day(days: i64) -> Timestamp {
    let (today, _) = now().day_and_micros();
    Timestamp::from_days(today + days)
}

/// A text without the parts that change every day.
fn dateless(text: &str) -> String {
    (-40..=10).fold(text.to_owned(), |text, days| {
        let date = day(days).to_string()[..10].to_owned();
        text.replace(&date, &format!("TODAY{days:+}")).replace(&date.replace('-', ""), &format!("TODAY{days:+}"))
    })
}

/// Checks that the output is the reviewed one and, where lines can be broken, fits a terminal.
fn assert_golden(name: &str, ran: &Ran, code: i32) {
    assert_eq!((ran.code, &*ran.err), (code, ""), "{}", ran.out);
    assert!(is_expected(name, &dateless(&ran.out)), "{name} differs: {HOW_TO_ACCEPT}");
}

/// The program's error message and exit code.
fn assert_refused(ran: &Ran, code: i32, words: &str) {
    assert_eq!((ran.code, &*ran.out), (code, ""), "{}", ran.err);
    assert!(ran.err.starts_with("millstream: ") || code == 2, "{}", ran.err);
    assert!(ran.err.contains(words), "{words} is missing in: {}", ran.err);
}
