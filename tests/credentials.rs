//! Secrets that come from elsewhere, and configurations that do.

use aws_sdk_s3::primitives::ByteStream;
use millstream::aws::Aws;
use millstream::config::{Credentials, DatabaseAddress};
use millstream::database::Database;
use millstream_tests::local_aws::{LocalAws, REGION};

use crate::support::{client, cluster, database};

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
        |arn: String| DatabaseAddress { credentials: Credentials::Secret(arn), ..DatabaseAddress::of_url(&plain) };

    let arn = secret(&local, "app", r#"{"username":"app","password":"secret","engine":"postgres"}"#).await;
    let database = Database::new(&login(arn), aws.clone()).unwrap();
    let connection = database.connection().await.unwrap();
    let user: String = connection.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(user, "app");

    let unusable = secret(&local, "unusable", r#"{"password":"hunter2"}"#).await;
    let error = Database::new(&login(unusable), aws.clone()).unwrap().connection().await.map(drop).unwrap_err();
    assert!(error.to_string().contains("no JSON object with username and password"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_configuration_may_lie_on_s3() {
    let local = LocalAws::start().await.unwrap();
    let client = aws_sdk_s3::Client::new(local.config());
    client.create_bucket().bucket("configuration").send().await.unwrap();
    let body = ByteStream::from_static(b"[source.s]\nstream = \"s\"\n");
    client.put_object().bucket("configuration").key("a/millstream.toml").body(body).send().await.unwrap();
    let aws = Aws::local(local.endpoint(), REGION).await;
    let archive = millstream::archive::Archive::new(aws, None);
    let text = archive.read_text("s3://configuration/a/millstream.toml").await.unwrap();
    assert!(text.starts_with("[source.s]"));
    let missing = archive.read_text("s3://configuration/none").await.unwrap_err();
    assert!(missing.to_string().starts_with("reading s3://configuration/none: "), "{missing}");
    assert!(archive.read_text("s3://nowhere").await.is_err());
}
