//! `infra/roles.sql` on a server of its own, run by a user like RDS's master user, who is not a superuser.

use std::path::PathBuf;
use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::maintain::pending;
use millstream::task::Deadline;
use millstream::totals::task::{RemovedTotal, TotalsTask, run_task};
use millstream_tests::board::LocalBoard;
use millstream_tests::postgresql::{Durability, PostgreSql, connect, psql};
use millstream_tests::process::workspace;
use tokio_postgres::Client;

use crate::board::client::Browser;
use crate::maintain::run_maintain_with;
use crate::support::{batch, ingest, rows};

const EVENTS: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.entry]\nsource = \"log\"\nid = \"id\"\n\
    partition = { by = \"at\", every = \"day\", ahead = 2, keep = \"10 days\" }\n";

const TOTAL: &str = "[total.entries]\ntable = \"entry\"\nby = [\"kind\"]\nsums = { amount = \"amount\" }\n";

const REPORTS: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n";

const REPLICA: &str = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\n";

fn script() -> PathBuf {
    workspace().join("infra/roles.sql")
}

/// A database owned by a user like RDS's master user, and a name for each user who connects to it.
struct Server {
    cluster: PostgreSql,
}

impl Server {
    async fn start(name: &str) -> Self {
        let cluster = PostgreSql::start(name, Durability::Test).unwrap();
        let superuser = connect(&cluster.url("postgres")).await.unwrap();
        let master = "CREATE ROLE master LOGIN CREATEROLE CREATEDB; CREATE ROLE rds_iam; GRANT rds_iam TO master WITH ADMIN OPTION";
        superuser.batch_execute(master).await.unwrap();
        superuser.batch_execute("CREATE DATABASE app OWNER master").await.unwrap();
        // As on PostgreSQL 14.
        let public = "ALTER SCHEMA public OWNER TO master; GRANT CREATE ON SCHEMA public TO PUBLIC";
        connect(&cluster.url("app")).await.unwrap().batch_execute(public).await.unwrap();
        Self { cluster }
    }

    fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/app", self.cluster.port())
    }

    async fn client(&self, user: &str) -> Client {
        connect(&self.url(user)).await.unwrap()
    }

    fn run(&self, variables: &[&str], password: &str) {
        psql(&self.url("master"), &script(), variables, &[("WRITER_PASSWORD", password)]).unwrap();
    }

    /// A person who has one of the roles.
    async fn person(&self, name: &str, role: &str) -> Client {
        let master = self.client("master").await;
        master.batch_execute(&format!("CREATE ROLE {name} LOGIN; GRANT {role} TO {name}")).await.unwrap();
        self.client(name).await
    }
}

async fn refused(client: &Client, statement: &str) -> String {
    let error = client.batch_execute(statement).await.expect_err(statement);
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

/// All attributes and privileges of the roles.
async fn state(client: &Client) -> Vec<String> {
    let roles = "SELECT rolname, rolcanlogin, rolconnlimit, rolsuper, rolcreaterole, \
         ARRAY(SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = pg_roles.oid ORDER BY 1) AS of, \
         (SELECT datacl::text FROM pg_database WHERE datname = 'app') AS database, \
         ARRAY(SELECT defaclobjtype::text || defaclacl::text FROM pg_default_acl WHERE defaclrole = pg_roles.oid ORDER BY 1) AS defaults \
         FROM pg_roles WHERE rolname LIKE 'millstream%' ORDER BY 1";
    rows(client, roles).await
}

/// Roles without a grant have no right that PostgreSQL gives to everyone.
async fn only_the_writer_creates_temporary_tables(server: &Server) {
    let master = server.client("master").await;
    master.batch_execute("CREATE ROLE bare LOGIN").await.unwrap();
    let error = connect(&server.url("bare")).await.map(drop).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
    let rights = "SELECT name, has_schema_privilege(name, 'public', 'CREATE') AS creates, \
        has_database_privilege(name, current_database(), 'TEMPORARY') AS temporary \
        FROM unnest('{bare,millstream_reader,millstream_writer}'::name[]) AS name";
    // The writer tries the expressions of totals on temporary tables.
    let expected = [
        r#"{"name":"bare","creates":false,"temporary":false}"#,
        r#"{"name":"millstream_reader","creates":false,"temporary":false}"#,
        r#"{"name":"millstream_writer","creates":false,"temporary":true}"#,
    ];
    assert_eq!(rows(&master, rights).await, expected);
    let writing = server.client("millstream_writer").await;
    let path = "SELECT current_setting('search_path') AS path";
    assert_eq!(rows(&writing, path).await, [r#"{"path":"pg_catalog"}"#]);
}

#[tokio::test]
async fn the_writer_evolves_the_reader_reads_and_a_second_run_changes_nothing() {
    let server = Server::start("roles").await;
    server.run(&["connections=40"], "hunter2");
    let first = state(&server.client("master").await).await;
    assert!(
        first[0].starts_with(r#"{"rolname":"millstream_board","rolcanlogin":true,"rolconnlimit":4,"rolsuper":false"#),
        "{first:?}"
    );
    assert!(
        first[3].starts_with(r#"{"rolname":"millstream_writer","rolcanlogin":true,"rolconnlimit":40,"rolsuper":false"#),
        "{first:?}"
    );
    server.run(&["connections=40"], "hunter2");
    assert_eq!(state(&server.client("master").await).await, first);

    only_the_writer_creates_temporary_tables(&server).await;

    // The writer creates schemas, tables, partitions and columns, and drops partitions.
    let writer = server.url("millstream_writer");
    let mut events = ingest(EVENTS, &writer);
    let entry = |id: u32, more: &str| format!(r#"{{"id":"{id}","at":"{}"{more}}}"#, millstream::clock::now());
    let report = batch(&mut events, 1, &[entry(1, "")]).await.unwrap();
    assert_eq!(report.counts.applied, 1, "{report}");
    let report = batch(&mut events, 2, &[entry(2, r#","new":"column""#)]).await.unwrap();
    assert_eq!((report.counts.applied, report.ddl > 0), (1, true), "{report}");
    assert_eq!(run_maintain_with(EVENTS, &writer).await.made.len(), 2);
    let delete = r#"{"Records":[{"eventID":"e","eventName":"REMOVE","eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/T/stream/x",
        "dynamodb":{"Keys":{"id":{"S":"a"}},"SequenceNumber":"100000000000000000001"}}]}"#;
    ingest(REPLICA, &writer).process_event(delete.as_bytes(), std::time::Duration::from_secs(60)).await.unwrap();

    // A reader reads all of it, including tables created after the script ran, and writes nothing.
    let reader = server.person("alice", "millstream_reader").await;
    assert_eq!(
        rows(&reader, "SELECT id, new FROM log.entry ORDER BY id").await,
        [r#"{"id":"1","new":null}"#, r#"{"id":"2","new":"column"}"#]
    );
    assert_eq!(rows(&reader, "SELECT count(*) FROM millstream.tombstone").await, [r#"{"count":1}"#]);
    for statement in [
        "INSERT INTO log.entry (id, at) VALUES ('3', now())",
        "UPDATE log.entry SET new = 'x'",
        "DELETE FROM log.entry",
        "TRUNCATE log.entry",
        "ALTER TABLE log.entry ADD COLUMN mine text",
        "CREATE TABLE log.mine ()",
        "CREATE SCHEMA mine",
        "DELETE FROM millstream.tombstone",
    ] {
        assert_eq!(refused(&reader, statement).await, "42501", "{statement}");
    }

    // An owner changes the writer's tables; the writer evolves tables that the owner created as the writer, and fills the owner's own.
    let owner = server.person("olga", "millstream_owner").await;
    let prepared = "ALTER TABLE log.entry ALTER COLUMN new TYPE varchar(20); \
         SET ROLE millstream_writer; CREATE SCHEMA prepared; CREATE TABLE prepared.other (_id text PRIMARY KEY); \
         RESET ROLE; CREATE FUNCTION log.entries() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM log.entry'";
    owner.batch_execute(prepared).await.unwrap();
    assert_eq!(rows(&reader, "SELECT log.entries()").await, [r#"{"entries":2}"#]);
    let other = "[source.prepared]\nstream = \"s\"\nformat = \"json\"\n[table.other]\nsource = \"prepared\"\n";
    let report = batch(&mut ingest(other, &writer), 5, &[r#"{"more":1}"#]).await.unwrap();
    assert_eq!((report.counts.applied, report.ddl > 0), (1, true), "{report}");
    assert_eq!(rows(&reader, "SELECT more FROM prepared.other").await, [r#"{"more":1}"#]);
}

#[tokio::test]
async fn what_is_there_already_is_read_too_and_iam_is_asked_for() {
    let server = Server::start("roles-late").await;
    server.run(&[], "");
    let master = server.client("master").await;
    assert_eq!(
        rows(&master, "SELECT pg_has_role('millstream_writer', 'rds_iam', 'MEMBER') AS iam").await,
        [r#"{"iam":false}"#]
    );
    // A table that was created before readers could read it.
    batch(&mut ingest(REPORTS, &server.url("millstream_writer")), 1, &[r#"{"id":"1"}"#]).await.unwrap();
    let reader = server.person("alice", "millstream_reader").await;
    master
        .batch_execute("REVOKE ALL ON SCHEMA log FROM millstream_reader; REVOKE ALL ON log.log FROM millstream_reader")
        .await
        .unwrap();
    assert_eq!(refused(&reader, "SELECT FROM log.log").await, "42501");
    server.run(&["iam=yes", "prefix=other"], "");
    server.run(&["iam=yes"], "");
    assert_eq!(rows(&reader, "SELECT id FROM log.log").await, [r#"{"id":"1"}"#]);
    assert_eq!(
        rows(&master, "SELECT pg_has_role('millstream_writer', 'rds_iam', 'MEMBER') AS iam").await,
        [r#"{"iam":true}"#]
    );
    let names = "SELECT string_agg(rolname, ' ' ORDER BY rolname) AS all FROM pg_roles WHERE rolname LIKE 'other%'";
    assert_eq!(rows(&master, names).await, [r#"{"all":"other_board other_owner other_reader other_writer"}"#]);
    // Two systems in a cluster cannot write to each other's tables.
    let other = server.client("other_writer").await;
    assert_eq!(refused(&other, "DROP SCHEMA log CASCADE").await, "42501");
}

/// The grants that the next run of `maintain` makes.
async fn planned(client: &Client, config: &str) -> Vec<String> {
    let mut statements = pending::dry_run(client, &Config::parse("test.toml", config).unwrap()).await.unwrap();
    statements.retain(|statement| statement.starts_with("GRANT "));
    statements
}

/// A person does not log in as the board; the test does, as its function would.
#[tokio::test]
async fn the_board_reads_what_it_shows_and_nothing_else() {
    let server = Server::start("roles-board").await;
    server.run(&["board_connections=2"], "hunter2");
    let writer = server.url("millstream_writer");
    let shown = "board = { value = \"amount\" }\n";
    let report = "[report.own]\nfunction = \"log.own\"\ncolumns = { amount = \"number\" }\n";
    let config = format!("{EVENTS}{TOTAL}{shown}{report}");
    let entry = |id: u32| format!(r#"{{"id":"{id}","at":"{}","kind":"k","amount":{id}}}"#, millstream::clock::now());
    batch(&mut ingest(&config, &writer), 1, &[entry(1), "{".to_owned()]).await.unwrap();
    let board = server.client("millstream_board").await;
    // The activity and the totals are granted when they are created; a report by `maintain`.
    assert_eq!(
        rows(&board, "SELECT source, records FROM millstream.minute").await,
        [r#"{"source":"log","records":2}"#]
    );
    assert_eq!(rows(&board, "SELECT kind, amount FROM log.entries").await, [r#"{"kind":"k","amount":1}"#]);
    let owner = server.client("millstream_writer").await;
    let function = "CREATE FUNCTION log.own(reader text) RETURNS TABLE (amount numeric) LANGUAGE sql STABLE SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp AS 'SELECT e.amount FROM log.entry e WHERE e.kind = reader'; \
         REVOKE ALL ON FUNCTION log.own(text) FROM PUBLIC";
    owner.batch_execute(function).await.unwrap();
    assert_eq!(refused(&board, "SELECT log.own('k')").await, "42501");
    let grant = "GRANT EXECUTE ON FUNCTION \"log\".\"own\"(pg_catalog.text) TO \"millstream_board\"";
    assert_eq!(planned(&owner, &config).await, [grant]);
    run_maintain_with(&config, &writer).await;
    assert_eq!(planned(&owner, &config).await, [""; 0]);
    assert_eq!(rows(&board, "SELECT amount FROM log.own('k')").await, [r#"{"amount":1}"#]);
    for relation in ["millstream.event", "millstream.total", "millstream.total_broken"] {
        board
            .batch_execute(&format!("SELECT FROM {relation}"))
            .await
            .unwrap_or_else(|error| panic!("{relation}: {error}"));
    }
    // Neither a table, nor what a total consists of, nor anything of Millstream's that the board does not show.
    for relation in [
        "log.entry",
        "millstream.entries_v1_batch",
        "millstream.entries_v1_delta",
        "millstream.freshness",
        "millstream.schema_lock",
        "pg_catalog.pg_authid",
    ] {
        assert_eq!(refused(&board, &format!("SELECT FROM {relation}")).await, "42501", "{relation}");
    }
    // Its sessions are read-only, and it has no right to write when they are not.
    assert_eq!(refused(&board, "DELETE FROM millstream.event").await, "25006");
    board.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    for statement in [
        "DELETE FROM millstream.event",
        "INSERT INTO millstream.minute DEFAULT VALUES",
        "DELETE FROM log.entry",
        "CREATE TABLE public.mine ()",
        "CREATE TABLE log.mine ()",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine ()",
        "SELECT millstream.entries_v1_fold()",
        "SET ROLE millstream_writer",
        "SET ROLE millstream_reader",
    ] {
        assert_eq!(refused(&board, statement).await, "42501", "{statement}");
    }
    let settings = "SELECT current_setting('search_path') AS path, current_setting('statement_timeout') AS timeout";
    assert_eq!(rows(&board, settings).await, [r#"{"path":"pg_catalog","timeout":"5s"}"#]);
    let _second = server.client("millstream_board").await;
    let error = connect(&server.url("millstream_board")).await.map(drop).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
}

/// A person who may look at the board sees its figures through the board's own login.
#[tokio::test]
async fn a_board_works_with_the_privileges_of_its_role() {
    let server = Server::start("roles-board-page").await;
    server.run(&[], "hunter2");
    let writer = server.url("millstream_writer");
    let config = format!("{EVENTS}{TOTAL}board = {{ value = \"amount\" }}\n");
    let entry = format!(r#"{{"id":"1","at":"{}","kind":"k","amount":7}}"#, millstream::clock::now());
    batch(&mut ingest(&config, &writer), 1, &[entry, "{".to_owned()]).await.unwrap();
    run_maintain_with(&config, &writer).await;
    let board = LocalBoard::start(&config, &server.url("millstream_board")).unwrap();
    let browser = Browser::new(&board.url()).with_bearer(&board.tokens().operator);
    let page = browser.json("/").await.parsed();
    let sections = page["sections"].as_object().unwrap();
    assert!(page["not_refreshed"].is_null() && sections.len() >= 6, "{page:#}");
    for (id, section) in sections {
        assert!(section["error"].is_null(), "{id}: {section:#}");
    }
    assert_eq!(page["sections"]["total-entries"]["groups"][0]["name"], "k", "{page:#}");
}

#[tokio::test]
async fn the_writer_keeps_totals_and_the_reader_reads_them() {
    let server = Server::start("roles-totals").await;
    server.run(&[], "hunter2");
    let url = server.url("millstream_writer");
    let mut ingest = ingest(&format!("{EVENTS}{TOTAL}"), &url);
    let entry = |id: u32| format!(r#"{{"id":"{id}","at":"{}","kind":"k","amount":{id}}}"#, millstream::clock::now());
    batch(&mut ingest, 1, &[entry(1)]).await.unwrap();
    batch(&mut ingest, 2, &[entry(2)]).await.unwrap();
    let reader = server.person("alice", "millstream_reader").await;
    let total = "SELECT kind, rows, amount FROM log.entries";
    assert_eq!(rows(&reader, total).await, [r#"{"kind":"k","rows":2,"amount":3}"#]);
    // Any role that may write the table feeds the total, without rights on the total's own tables.
    let master = server.client("master").await;
    let grants = "CREATE ROLE fixer LOGIN; GRANT CONNECT ON DATABASE app TO fixer; GRANT USAGE ON SCHEMA log TO fixer; \
        GRANT SELECT, UPDATE ON log.entry TO fixer";
    master.batch_execute(grants).await.unwrap();
    let fixer = server.client("fixer").await;
    fixer.batch_execute("UPDATE log.entry SET amount = 5 WHERE id = '2'").await.unwrap();
    assert_eq!(refused(&fixer, "SELECT FROM millstream.entries_v1_delta").await, "42501");
    assert_eq!(rows(&reader, total).await, [r#"{"kind":"k","rows":2,"amount":6}"#]);
    assert_eq!(refused(&reader, "DELETE FROM millstream.entries_v1_batch").await, "42501");

    let config = Config::parse("test.toml", &format!("{EVENTS}{TOTAL}")).unwrap_or_else(|errors| panic!("{errors}"));
    let database = Database::new(&DatabaseAddress::from_url(&url), Aws::default()).unwrap();
    let deadline = Deadline::after(Duration::from_secs(60));
    let answer = run_task(&config, &database, TotalsTask::default(), deadline).await.unwrap();
    let report = answer.results[0].report.as_ref().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!((report.off_by, report.triggers_repaired), (0, 0), "{answer:?}");
    assert_eq!(rows(&reader, total).await, [r#"{"kind":"k","rows":2,"amount":6}"#]);
    // A right that was taken away is not given back with a new view.
    master.batch_execute("REVOKE SELECT ON log.entries FROM millstream_reader").await.unwrap();
    let changed = format!("{EVENTS}{TOTAL}").replace("amount = \"amount\"", "total = \"amount\"");
    let changed = Config::parse("test.toml", &changed).unwrap_or_else(|errors| panic!("{errors}"));
    let answer = run_task(&changed, &database, TotalsTask::default(), deadline).await.unwrap();
    assert_eq!(answer.results[0].error, None);
    assert_eq!(rows(&master, "SELECT total FROM log.entries").await, [r#"{"total":6}"#]);
    assert_eq!(refused(&reader, "SELECT FROM log.entries").await, "42501");
    // A total that is not configured any more is removed.
    let without = Config::parse("test.toml", EVENTS).unwrap_or_else(|errors| panic!("{errors}"));
    let answer = run_task(&without, &database, TotalsTask::default(), deadline).await.unwrap();
    assert_eq!(answer.removed, [RemovedTotal { total: "entries".to_owned(), error: None }]);
    assert_eq!(refused(&reader, total).await, "42P01");
}
