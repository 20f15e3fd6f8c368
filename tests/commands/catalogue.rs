//! `millstream catalogue`: the pages that are committed are true, and a template is read as CloudFormation reads it.

use millstream_tests::process::{target, workspace};
use millstream_tests::program::{Ran, millstream};
use serde_json::Value;

use super::{assert_golden, assert_refused};

/// A template like `infra/template.yaml`, with each way of starting a function, a nested stack, and much that the catalogue
/// ignores.
const TEMPLATE: &str = r#"
Transform: AWS::Serverless-2016-10-31
Parameters:
  System: {Type: String}
  OrdersStream: {Type: String, Default: ""}
  Every: {Type: String, Default: rate(6 hours)}
Mappings: {Size: {Small: {Memory: 256}}}
Conditions:
  ReadsOrders: !Not [!Equals [!Ref OrdersStream, ""]]
  IsProduction: !Equals [!Ref AWS::AccountId, "123456789012"]
Globals:
  Function:
    Runtime: provided.al2023
    Environment: {Variables: {DEAD_LETTER_QUEUE_URL: !Ref DeadLetters}}
Resources:
  Bets:
    Type: AWS::Kinesis::Stream
    Properties: {Name: !Sub "${System}-bets", ShardCount: 4}
  DeadLetters: {Type: AWS::SQS::Queue}
  Ingest:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: kinesis-ingest}}
    Properties:
      Description: Load Kinesis streams into tables
      MemorySize: !FindInMap [Size, Small, Memory]
      Events:
        Bets: {Type: Kinesis, Properties: {Stream: !GetAtt Bets.Arn, StartingPosition: TRIM_HORIZON}}
        Elsewhere: {Type: Kinesis, Properties: {Stream: !ImportValue elsewhere, StartingPosition: TRIM_HORIZON}}
        Off: {Type: Kinesis, Properties: {Stream: !Sub "arn:aws:kinesis:::stream/off", Enabled: false}}
  Sync:
    Type: AWS::Serverless::Function
    Properties:
      Events:
        Customers: !If
          - IsProduction
          - {Type: DynamoDB, Properties: {Stream: "arn:aws:dynamodb:eu-west-1:1:table/Customers/stream/2026"}}
          - !Ref AWS::NoValue
  Orders:
    Type: AWS::CloudFormation::Stack
    Condition: ReadsOrders
    Properties: {TemplateURL: test-catalogue-nested.yaml, Parameters: {StreamArn: !Ref OrdersStream, Function: !Ref Sync}}
  Maintain:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: maintain}}
    Properties:
      Events: {Clock: {Type: ScheduleV2, Properties: {ScheduleExpression: !Ref Every}}}
  Recompute:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: recompute}}
    Properties: {Description: Build totals}
  Totals:
    Type: AWS::Serverless::StateMachine
    Properties:
      DefinitionSubstitutions: {RecomputeFunction: !Ref Recompute}
      Events: {Clock: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 hour)}}}
  Publish:
    Type: AWS::Serverless::Function
    Properties: {ReservedConcurrentExecutions: 0, Events: {Clock: {Type: Schedule, Properties: {Schedule: rate(1 minute)}}}}
  Elsewhere:
    Type: AWS::CloudFormation::Stack
    Properties: {TemplateURL: "https://example.com/none.yaml"}
"#;

const NESTED: &str = "
Parameters: {StreamArn: {Type: String}, Function: {Type: String}}
Resources:
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: !Ref Function, EventSourceArn: !Ref StreamArn}
";

const CONFIG: &str = r#"
[source.sportsbook]
stream = "prod-bets"
format = "json"
private = ["ip", { path = "email", as = "sha256" }]
partition = { by = "at", every = "hour", ahead = 6, keep = "36 hours" }
[table.bet]
source = "sportsbook"
key = ["bet_id"]
version = "at"
merge = "column"
when = { path = "kind", is = "bet" }
[table.click]
source = "sportsbook"
id = "click_id"
[total.betting]
table = "bet"
by = { game = "lower(game_id)", side = "side" }
bucket = { at = "at", every = "hour", keep = "36 hours" }
where = "note || kind <> 'void'"
sums = { staked = "stake", open = { of = "stake * odds", where = "kind = 'open'" } }
[source.shop]
stream = ["Customers", "arn:aws:dynamodb:eu-west-1:1:table/Orders/stream/2026"]
format = "dynamodb"
deletes = "soft"
[source.warehouse]
stream = "*"
format = "dms"
exclude = ["public.secret"]
"#;

/// The system of the sample; its files lie side by side under target/.
async fn sample(more: &[&str]) -> Ran {
    let parameters = "version = 0.1\n[default.deploy.parameters]\ntemplate_file = \"target/test-catalogue.yaml\"\n\
        [default.deploy.parameters.parameter_overrides]\nSystem = \"prod\"\nUnused = [\"a\", \"b\"]\n\
        OrdersStream = \"arn:aws:dynamodb:eu-west-1:1:table/Orders/stream/2026\"\n";
    for (name, text) in [
        ("test-catalogue.yaml", TEMPLATE),
        ("test-catalogue-nested.yaml", NESTED),
        ("test-catalogue.toml", CONFIG),
        ("test-catalogue-parameters.toml", parameters),
    ] {
        std::fs::write(target().join(name), text).unwrap();
    }
    let files = ["--config", "target/test-catalogue.toml", "--parameters", "target/test-catalogue-parameters.toml"];
    millstream(&[], &[&["catalogue"], &files[..], more].concat()).await.unwrap()
}

#[tokio::test]
async fn golden_a_system_is_put_together_from_configuration_and_template() {
    assert_golden("catalogue", &sample(&[]).await, 0);
    let json: Value = serde_json::from_str(&sample(&["--json"]).await.out).unwrap();
    let stream = &json["sources"][0]["streams"][0];
    let function = &json["functions"][stream["functions"][0].as_u64().unwrap() as usize];
    assert_eq!(
        (&stream["name"], &stream["kind"], &function["name"]),
        (&"Customers".into(), &"DynamoDB".into(), &"Sync".into()),
        "{json}"
    );
}

/// `make catalogue` writes these pages.
#[tokio::test]
async fn every_system_s_page_is_true() {
    for entry in std::fs::read_dir(workspace().join("events")).unwrap() {
        let system = entry.unwrap().file_name().into_string().unwrap();
        let config = format!("events/{system}/millstream.toml");
        let parameters = format!("infra/parameters/{system}.toml");
        let mut arguments = vec!["catalogue", "--config", &config];
        if workspace().join(&parameters).exists() {
            arguments.extend(["--parameters", &parameters]);
        }
        let ran = millstream(&[], &arguments).await.unwrap();
        assert_eq!((ran.code, &*ran.err), (0, ""));
        let page =
            std::fs::read_to_string(workspace().join(format!("events/{system}/CATALOGUE.md"))).unwrap_or_default();
        assert!(page == ran.out, "events/{system}/CATALOGUE.md is out of date; run `make catalogue`");
    }
}

#[tokio::test]
async fn an_invalid_template_is_reported_in_clear_words() {
    let config = "events/sportsbook/millstream.toml";
    let run = async |file: &str| millstream(&[], &["catalogue", "--config", config, "--template", file]).await.unwrap();
    assert_refused(&run("nowhere.yaml").await, 2, "nowhere.yaml: No such file");
    assert_refused(&run("Cargo.toml").await, 2, "Cargo.toml: ");
    let no_resources = target().join("test-no-template.yaml");
    std::fs::write(&no_resources, "a: [1, 2]\n").unwrap();
    assert_refused(
        &run(&no_resources.to_string_lossy()).await,
        2,
        "not a CloudFormation template: Resources is missing",
    );
    let mistaken = target().join("test-catalogue-mistaken.toml");
    std::fs::write(&mistaken, "[source.a]\nstreams = \"s\"\n").unwrap();
    let ran = millstream(&[], &["catalogue", "--config", &mistaken.to_string_lossy()]).await.unwrap();
    assert_refused(&ran, 1, "source.a.streams: unknown key; did you mean `stream`?");
}
