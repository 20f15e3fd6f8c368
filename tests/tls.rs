//! TLS to PostgreSQL: except on localhost, nothing is sent to a server before its certificate is verified.
//!
//! The server is on this machine nevertheless: `host` is the name to verify, `hostaddr` the address.

use millstream::aws::Aws;
use millstream::config::{Credentials, DatabaseAddress};
use millstream::database::{Database, DatabaseError};
use millstream_tests::certificates::{Authority, Validity};
use millstream_tests::cleartext_server::CleartextServer;
use millstream_tests::postgresql::{Durability, PostgreSql};

use crate::support::{Files, client, cluster};

/// The address of a server on this machine under another name, with a password that must not be logged.
fn address(host: &str, server: &PostgreSql, ca_file: Option<&str>) -> DatabaseAddress {
    let ca = ca_file.map(|file| format!("&sslrootcert={file}")).unwrap_or_default();
    let port = server.port();
    DatabaseAddress::from_url(&format!("postgresql://postgres:hunter2@{host}:{port}/postgres?hostaddr=127.0.0.1{ca}"))
}

/// The TLS version that the server sees.
async fn version(server: &PostgreSql, address: &DatabaseAddress) -> Result<String, DatabaseError> {
    let connection = Database::new(address, Aws::default())?.connection().await?;
    let backend = connection.query_typed("SELECT pg_backend_pid()", &[]).await.unwrap()[0].get(0);
    Ok(server.tls_version(backend).await.unwrap().unwrap())
}

/// Checks the message for the operator: it contains all of `expected`, and never the password.
async fn assert_refused(address: &DatabaseAddress, expected: &[&str]) {
    let error = match Database::new(address, Aws::default()) {
        Ok(database) => database.connection().await.map(drop).unwrap_err(),
        Err(error) => error,
    };
    let told = error.to_string();
    assert!(expected.iter().all(|part| told.contains(part)), "{told}, not {expected:?}");
    assert!(error.needs_operator(), "{told}");
    assert!(!format!("{told} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn only_the_server_that_is_meant_is_spoken_to() {
    let mut server = PostgreSql::start("tls", Durability::Test).unwrap();
    let files = Files::new("tls");
    let (ours, others) = (Authority::new("ours").unwrap(), Authority::new("others").unwrap());
    // The same name, as an impostor's CA would have.
    let false_one = Authority::new("ours").unwrap();
    let ca = files.write("ca.pem", ours.pem());
    let bundle = files.write("bundle.pem", &format!("{}# ours\n{}{}", others.pem(), ours.pem(), false_one.pem()));

    server.offer_tls(&ours.issue(&["db.example", "127.0.0.1"], Validity::Good).unwrap()).await.unwrap();
    assert_eq!(version(&server, &address("db.example", &server, Some(&ca))).await.unwrap(), "TLSv1.3");
    assert_eq!(version(&server, &address("db.example", &server, Some(&bundle))).await.unwrap(), "TLSv1.3");
    let by_variable = DatabaseAddress { ca_file: Some(ca.clone().into()), ..address("db.example", &server, None) };
    assert_eq!(version(&server, &by_variable).await.unwrap(), "TLSv1.3");
    let local = format!("{}?sslmode=verify-full&sslrootcert={}", server.url("postgres"), ca);
    assert_eq!(version(&server, &DatabaseAddress::from_url(&local)).await.unwrap(), "TLSv1.3");

    let untrusted = ["db.example", "its certificate is not signed by a trusted CA", "DATABASE_CA_FILE"];
    for other in [&others, &false_one] {
        let file = files.write("other.pem", other.pem());
        assert_refused(&address("db.example", &server, Some(&file)), &untrusted).await;
    }
    assert_refused(&address("db.example", &server, None), &untrusted).await;
    let elsewhere = ["elsewhere.example", "db.example", "connect by a name in the certificate"];
    assert_refused(&address("elsewhere.example", &server, Some(&ca)), &elsewhere).await;

    server.offer_tls(&ours.issue(&["db.example"], Validity::Expired).unwrap()).await.unwrap();
    let expired = ["db.example", "certificate expired", "renew the server's certificate"];
    assert_refused(&address("db.example", &server, Some(&ca)), &expired).await;
    // What openssl creates by default: a certificate that is also a CA.
    server.offer_tls(&ours.own()).await.unwrap();
    assert_refused(&address("db.example", &server, Some(&ca)), &["CaUsedAsEndEntity", "that is not a CA certificate"])
        .await;
}

#[tokio::test]
async fn off_localhost_plain_text_is_never_spoken() {
    // The server does not support TLS, and the address does not say `sslmode=disable`.
    let without_tls = ["db.example", "the server does not support TLS", "ssl = on", "sslmode=disable"];
    assert_refused(&address("db.example", cluster(), None), &without_tls).await;
    let asked_for = format!("{}?sslmode=verify-full", cluster().url("postgres"));
    assert_refused(&DatabaseAddress::from_url(&asked_for), &["127.0.0.1", "the server does not support TLS"]).await;
}

#[tokio::test]
async fn a_file_without_usable_certificates_is_named() {
    let files = Files::new("ca-files");
    let authority = Authority::new("ours").unwrap();
    let cut = &authority.pem()[..authority.pem().len() / 2];
    let garbled = authority.pem().replace("MII", "M!!");
    for (file, reason) in [
        ("/nowhere/ca.pem".to_owned(), "No such file"),
        (files.write("empty.pem", ""), "contains no PEM certificate"),
        (files.write("key.pem", &authority.issue(&["db.example"], Validity::Good).unwrap().key), "no PEM certificate"),
        (files.write("ca.der", "0\u{1}\u{2}"), "contains no PEM certificate"),
        (files.write("cut.pem", cut), "contains a truncated certificate"),
        (files.write("garbled.pem", &garbled), "base64"),
        (
            files.write("no-certificate.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "BadEncoding",
        ),
    ] {
        assert_refused(&address("db.example", cluster(), Some(&file)), &[&file, reason, "DATABASE_CA_FILE"]).await;
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear_text() {
    let server = CleartextServer::start().await.unwrap();
    let port = server.port();
    let expected = ["asks for the password in clear text", "sslmode=verify-full", "scram-sha-256"];
    for address in [
        format!("postgresql://writer:hunter2@127.0.0.1:{port}/db"),
        format!("postgresql://writer:hunter2@127.0.0.1:{port}/db?sslmode=disable"),
        format!("host=localhost hostaddr=127.0.0.1 port={port} user=writer password=hunter2"),
        format!("hostaddr=127.0.0.1 port={port} user=writer password=hunter2 sslmode=disable"),
        format!("host=localhost,127.0.0.1 port={port} user=writer password=hunter2"),
    ] {
        let address = DatabaseAddress::from_url(&address);
        assert_refused(&address, &expected).await;
        let error = Database::new(&address, Aws::default()).unwrap().side_connection().await.map(drop).unwrap_err();
        assert!(matches!(error, DatabaseError::Cleartext(_)), "{error}");
    }
    // With TLS required, nothing but the question for TLS is sent.
    assert_refused(
        &DatabaseAddress::from_url(&format!("postgresql://u:hunter2@db.example:{port}/db?hostaddr=127.0.0.1")),
        &["does not support TLS"],
    )
    .await;
    let received = server.received();
    assert!(received.contains("writer") && !received.contains("hunter2"), "{received}");
}

#[tokio::test]
async fn an_iam_token_is_not_sent_in_clear_text() {
    let server = CleartextServer::start().await.unwrap();
    let port = server.port();
    for url in [
        format!("postgresql://writer@127.0.0.1:{port}/db"),
        format!("postgresql://writer@localhost:{port}/db"),
        format!("postgresql://writer@db.example:{port}/db?hostaddr=127.0.0.1&sslmode=disable"),
        format!("host=/tmp port={port} user=writer"),
    ] {
        let address = DatabaseAddress { credentials: Credentials::Iam, ..DatabaseAddress::from_url(&url) };
        assert_refused(&address, &["DATABASE_AUTH=iam requires TLS", "sslmode=verify-full"]).await;
    }
    assert_eq!(server.received(), "");
}

#[tokio::test]
async fn each_way_to_log_in_without_tls_works_but_clear_text() {
    let mut server = PostgreSql::start("logins", Durability::Test).unwrap();
    let owner = client(&server.url("postgres")).await;
    for (role, stored, method) in [
        ("scram", "scram-sha-256", "scram-sha-256"),
        ("hashed", "md5", "md5"),
        ("trusted", "scram-sha-256", "trust"),
        ("clear", "scram-sha-256", "password"),
    ] {
        let create = format!("SET password_encryption = '{stored}'; CREATE ROLE {role} LOGIN PASSWORD 'hunter2'");
        owner.batch_execute(&create).await.unwrap();
        server.allow(&format!("host all {role} all {method}")).await.unwrap();
    }
    let url = |role: &str| format!("postgresql://{role}:hunter2@127.0.0.1:{}/postgres", server.port());
    for role in ["scram", "hashed", "trusted"] {
        let database = Database::new(&DatabaseAddress::from_url(&url(role)), Aws::default()).unwrap();
        let connection = database.connection().await.unwrap();
        let user = connection.query_typed("SELECT current_user::text", &[]).await.unwrap()[0].get::<_, String>(0);
        assert_eq!(user, role);
    }
    let expected = ["127.0.0.1 asks for the password in clear text", "scram-sha-256"];
    assert_refused(&DatabaseAddress::from_url(&url("clear")), &expected).await;
    // A wrong password is still reported as one.
    let wrong = url("scram").replace("hunter2", "hunter3");
    let database = Database::new(&DatabaseAddress::from_url(&wrong), Aws::default()).unwrap();
    let error = database.connection().await.map(drop).unwrap_err();
    assert!(matches!(&error, DatabaseError::Connect(error) if error.code().is_some_and(|code| code.code() == "28P01")));

    // Within TLS, clear text is what IAM tokens use.
    let (authority, files) = (Authority::new("ours").unwrap(), Files::new("logins"));
    server.offer_tls(&authority.issue(&["127.0.0.1"], Validity::Good).unwrap()).await.unwrap();
    let ca = files.write("ca.pem", authority.pem());
    let encrypted =
        format!("postgresql://clear:hunter2@127.0.0.1:{}/postgres?sslmode=verify-full&sslrootcert={ca}", server.port());
    assert_eq!(version(&server, &DatabaseAddress::from_url(&encrypted)).await.unwrap(), "TLSv1.3");
}
