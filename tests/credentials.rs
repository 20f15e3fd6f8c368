//! Secrets from Secrets Manager, IAM tokens, and configurations from S3.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use millstream::aws::Aws;
use millstream::config::{Credentials, DatabaseAddress};
use millstream::database::Database;
use millstream_tests::certificates::{Authority, Validity};
use millstream_tests::function::{Function, FunctionError, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::local_aws::{LocalAws, REGION};
use millstream_tests::pgbouncer::Admission;
use millstream_tests::postgresql::{Durability, PostgreSql};
use serde_json::json;
use tokio_postgres::Client;

use crate::support::{Files, client, cluster, database, pooler, rows};

async fn secret(aws: &LocalAws, name: &str, text: &str) -> String {
    let client = aws_sdk_secretsmanager::Client::new(aws.config());
    let made = client.create_secret().name(name).secret_string(text).send().await.unwrap();
    made.arn().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_password_comes_from_secrets_manager() {
    let local = LocalAws::start().await.unwrap();
    let aws = Aws::local(local.endpoint(), REGION).await;
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute("CREATE ROLE app LOGIN PASSWORD 'secret'").await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let plain = format!("postgresql://127.0.0.1:{}/{name}?sslmode=disable", cluster().port());
    let login =
        |arn: String| DatabaseAddress { credentials: Credentials::Secret(arn), ..DatabaseAddress::from_url(&plain) };

    let arn = secret(&local, "app", r#"{"username":"app","password":"secret","engine":"postgres"}"#).await;
    let database = Database::new(&login(arn), aws.clone()).unwrap();
    let connection = database.connection().await.unwrap();
    let user: String = connection.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(user, "app");

    let unusable = secret(&local, "unusable", r#"{"password":"hunter2"}"#).await;
    let error = Database::new(&login(unusable), aws.clone()).unwrap().connection().await.map(drop).unwrap_err();
    assert!(error.to_string().contains("not a JSON object with username and password"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

/// A database that requires a password, the secret that holds the password, and a client that changes both.
struct Rotation {
    aws: LocalAws,
    server: PostgreSql,
    name: String,
    owner: Client,
    arn: String,
}

impl Rotation {
    async fn start(authority: &Authority) -> Self {
        let (aws, mut server) =
            (LocalAws::start().await.unwrap(), PostgreSql::start("rotation", Durability::Test).unwrap());
        server.offer_tls(&authority.issue(&["127.0.0.1"], Validity::Good).unwrap()).await.unwrap();
        server.allow("host all app all scram-sha-256").await.unwrap();
        let url = server.database().await.unwrap();
        let (owner, name) = (client(&url).await, url.rsplit('/').next().unwrap().to_owned());
        owner.batch_execute(&format!("CREATE ROLE app LOGIN; ALTER DATABASE {name} OWNER TO app")).await.unwrap();
        let arn = secret(&aws, "rotated", "{}").await;
        let rotation = Self { aws, server, name, owner, arn };
        rotation.change("first-pass").await;
        rotation.write_secret("first-pass").await;
        rotation
    }

    /// Changes the password in PostgreSQL.
    async fn change(&self, password: &str) {
        self.owner.batch_execute(&format!("ALTER ROLE app PASSWORD '{password}'")).await.unwrap();
    }

    /// Writes the password into the secret, in the form of the rotation templates.
    async fn write_secret(&self, password: &str) {
        let text = json!({"engine": "postgres", "host": "127.0.0.1", "port": self.server.port(), "dbname": self.name,
            "username": "app", "password": password});
        let client = aws_sdk_secretsmanager::Client::new(self.aws.config());
        client.put_secret_value().secret_id(&self.arn).secret_string(text.to_string()).send().await.unwrap();
    }

    /// The backend of the function.
    async fn backend(&self) -> i32 {
        let backend = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'";
        self.owner.query_one(backend, &[]).await.unwrap().get(0)
    }

    async fn cut_off(&self) {
        let cut = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = 'app'";
        assert_eq!(rows(&self.owner, cut).await, [r#"{"count":1}"#]);
    }
}

async fn write(function: &mut Function, number: u64) -> Result<(), FunctionError> {
    let record = ShardRecord::numbered(number, format!(r#"{{"id":"{number}"}}"#));
    function.invoke(event("s", "shardId-000000000000", &[record])).await.map(drop)
}

#[tokio::test]
async fn a_password_changes_under_a_running_function() {
    let (authority, files) = (Authority::new("ours").unwrap(), Files::new("rotation"));
    let rotation = Rotation::start(&authority).await;
    let queue = rotation.aws.queue("dead-letters").await.unwrap();
    let config = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.entry]\nsource = \"log\"\nid = \"id\"\n";
    let mut environment = rotation.aws.environment();
    for (name, value) in [
        ("DATABASE_SECRET_ARN", rotation.arn.clone()),
        ("DATABASE_CA_FILE", files.write("ca.pem", authority.pem())),
        ("MILLSTREAM_CONFIG", files.write("millstream.toml", config)),
        ("DEAD_LETTER_QUEUE_URL", queue.clone()),
    ] {
        environment.push((name.to_owned(), value));
    }
    let settings =
        Settings { binary: binary("kinesis-ingest").unwrap(), environment, timeout: Duration::from_secs(30) };
    let mut function = Function::start(settings).await.unwrap();
    write(&mut function, 1).await.unwrap();
    let first = rotation.backend().await;
    assert_eq!(rotation.server.tls_version(first).await.unwrap().as_deref(), Some("TLSv1.3"));

    // The connection stays open, so the password is not needed.
    rotation.change("second-pass").await;
    rotation.write_secret("second-pass").await;
    write(&mut function, 2).await.unwrap();
    assert_eq!(rotation.backend().await, first);
    // The connection is closed, and the function still has the old password.
    rotation.cut_off().await;
    write(&mut function, 3).await.unwrap();
    assert_ne!(rotation.backend().await, first);

    // Between the change in the database and that of the secret no login succeeds: the error is transient.
    rotation.change("third-pass").await;
    rotation.cut_off().await;
    let Err(FunctionError::Handled(told)) = write(&mut function, 4).await else { panic!("nobody can log in") };
    assert!(told.contains("password authentication failed") && told.contains("28P01"), "{told}");
    rotation.write_secret("third-pass").await;
    write(&mut function, 4).await.unwrap();
    assert_eq!(rows(&rotation.owner, "SELECT count(*) FROM log.entry").await, [r#"{"count":4}"#]);
    assert_eq!(rotation.aws.drain(&queue).await.unwrap(), [""; 0], "a refused login is nobody's dead letter");
    let log = std::fs::read_to_string(function.log()).unwrap();
    assert!(log.contains("Lambda will retry") && !log.contains("operator action required"), "{log}");
    assert!(!format!("{told}{log}").contains("-pass"), "a password is in the log: {told}{log}");
    drop(function);
    behind_a_pooler(&rotation).await;
}

/// PgBouncer checks the password itself and rejects a wrong one with a message of its own.
async fn behind_a_pooler(rotation: &Rotation) {
    let Some(pooler) = pooler(rotation.server.port(), 1, Admission::Password) else { return };
    let url = format!("postgresql://127.0.0.1:{}/{}", pooler.port(), rotation.name);
    let address =
        DatabaseAddress { credentials: Credentials::Secret(rotation.arn.clone()), ..DatabaseAddress::from_url(&url) };
    let database = Database::new(&address, Aws::local(rotation.aws.endpoint(), REGION).await).unwrap();
    drop(database.connection().await.unwrap());
    rotation.change("fourth-pass").await;
    rotation.write_secret("fourth-pass").await;
    let connection = database.connection().await.unwrap();
    assert_eq!(connection.query_typed("SELECT current_user::text", &[]).await.unwrap()[0].get::<_, &str>(0), "app");
}

#[tokio::test]
async fn a_configuration_may_lie_on_s3() {
    let local = LocalAws::start().await.unwrap();
    let client = aws_sdk_s3::Client::new(local.config());
    client.create_bucket().bucket("configuration").send().await.unwrap();
    let body = ByteStream::from_static(b"[source.s]\nstream = \"s\"\n");
    client.put_object().bucket("configuration").key("a/millstream.toml").body(body).send().await.unwrap();
    let aws = Aws::local(local.endpoint(), REGION).await;
    let archive = millstream::object_store::ObjectStore::new(aws, None);
    let text = archive.read_text("s3://configuration/a/millstream.toml").await.unwrap();
    assert!(text.starts_with("[source.s]"));
    let missing = archive.read_text("s3://configuration/none").await.unwrap_err();
    assert!(missing.to_string().starts_with("could not read s3://configuration/none: "), "{missing}");
    assert!(archive.read_text("s3://nowhere").await.is_err());
}
