//! The configuration is not SQL: a type is one type, and a check is one expression.

use millstream::config::Config;

use crate::support::{batch, client, database, ingest, rows};

fn config(column: &str) -> String {
    format!(
        "[source.s]\nstream = \"s\"\nformat = \"json\"\n\
         [table.r]\nsource = \"s\"\nwhen = {{ path = \"kind\", is = \"r\" }}\n\
         columns = {{ n = {{ path = \"n\", {column} }} }}\n\
         [table.good]\nsource = \"s\"\nwhen = {{ path = \"kind\", is = \"good\" }}\n"
    )
}

#[test]
fn statements_in_the_configuration_are_mistakes_with_their_position() {
    for (column, mistake) in [
        (
            r#"type = "integer", check = "true)); DROP TABLE public.canary; CREATE TABLE s.owned (a int CHECK (true""#,
            "millstream.toml:7:57: table.r.columns.n.check: must be one SQL expression, but closes a parenthesis",
        ),
        (r#"type = "integer references canary""#, "millstream.toml:7:38: table.r.columns.n.type: "),
        (r#"type = "text unique default current_user""#, "millstream.toml:7:38: table.r.columns.n.type: "),
    ] {
        let found = Config::parse("millstream.toml", &config(column)).map(drop).unwrap_err().to_string();
        assert!(found.contains(mistake), "{found}");
    }
}

#[tokio::test]
async fn postgresql_parses_a_type_as_a_type_and_a_check_as_an_expression() {
    for (column, mistake) in [
        (r#"type = "no_such_type""#, "unknown type no_such_type"),
        (r#"type = "check""#, "type of a column: "),
        (r#"type = "integer", check = "n >""#, "check of column \"n\": "),
        (r#"type = "integer", check = "n + 1""#, "check of column \"n\": "),
        (r#"type = "integer", check = "n > 'x'""#, "check of column \"n\": "),
        (r#"type = "integer", check = "n > other""#, "check of column \"n\": "),
    ] {
        let url = database().await;
        let documents = [r#"{"kind":"r","n":1}"#, r#"{"kind":"good","n":1}"#];
        let report = batch(&mut ingest(&config(column), &url), 1, &documents).await.unwrap();
        assert_eq!((report.counts.applied, report.counts.retry, report.unwritable_tables), (1, 1, 1), "{report}");
        let stopping = config(column).replace("[table.r]\n", "[table.r]\non_unwritable = \"stop\"\n");
        let error = batch(&mut ingest(&stopping, &url), 3, &documents).await.unwrap_err();
        let text = error.to_string();
        assert!(error.needs_operator() && text.contains("s.r") && text.contains(mistake), "{column}: {text}");
    }
}

#[tokio::test]
async fn checks_of_new_and_of_added_columns_are_kept_as_they_are_written() {
    let url = database().await;
    let check = r#"type = "double precision", check = "r.n > 0 AND n::text ~ '^\\d' AND n NOT IN (13, 17)""#;
    batch(&mut ingest(&config(check), &url), 1, &[r#"{"kind":"r","n":1,"id":"1"}"#]).await.unwrap();
    let client = client(&url).await;
    let added = "ALTER TABLE s.r DROP COLUMN n";
    let definition = "SELECT pg_get_constraintdef(oid) AS check FROM pg_constraint WHERE contype = 'c' AND conrelid = 's.r'::regclass";
    let kept = r#"n > (0)::double precision) AND ((n)::text ~ '^\\d'::text)"#;
    for (first, valid) in [(2, ""), (4, "NOT VALID")] {
        let found = rows(&client, definition).await;
        assert!(found.len() == 1 && found[0].contains(kept) && found[0].contains(valid), "{found:?}");
        client.batch_execute(added).await.unwrap();
        let report =
            batch(&mut ingest(&config(check), &url), first, &[r#"{"kind":"r","n":13}"#, r#"{"kind":"r","n":2}"#]).await;
        let report = report.unwrap();
        assert_eq!((report.counts.applied, report.counts.retry), (1, 1), "{report}");
    }
}
