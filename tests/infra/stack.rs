//! The systems' stacks, created in moto from the translated templates by `tests/stack/create.py`, and read back.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use millstream_tests::process::{tool, workspace};
use serde_json::{Value, json};

/// The resources of a created system, by kind and name.
pub fn created(system: &str) -> &'static Value {
    static SPORTSBOOK: OnceLock<Value> = OnceLock::new();
    static REPLICA: OnceLock<Value> = OnceLock::new();
    let cell = if system == "replica" { &REPLICA } else { &SPORTSBOOK };
    cell.get_or_init(|| {
        let output = Command::new(tool("python")).arg(workspace().join("tests/stack/create.py")).arg(system).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The members of `found` that `asked` has, and what `asked` says of them.
pub fn assert_has(found: &Value, asked: &Value) {
    for (key, value) in asked.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key} of {found:#}");
    }
}

const ACCOUNT: &str = "eu-west-1:123456789012";
const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef";

#[test]
fn each_stream_is_mapped_so_that_nothing_is_lost() {
    let always = json!({
        "StartingPosition": "TRIM_HORIZON", "BisectBatchOnFunctionError": true, "MaximumRetryAttempts": -1,
        "FunctionResponseTypes": ["ReportBatchItemFailures"], "MetricsConfig": {"Metrics": ["EventCount"]},
        "MaximumBatchingWindowInSeconds": 1, "State": "Enabled",
    });
    for (system, stream, function, batch, factor, age) in [
        ("sportsbook", "sportsbook", "kinesis-ingest", 2000, 2, 432_000),
        ("replica", "bank", "kinesis-ingest", 2000, 1, 64_800),
        ("replica", "Customers", "dynamodb-sync", 1000, 1, 64_800),
        ("replica", "Orders", "dynamodb-sync", 1000, 2, 64_800),
        ("replica", "Stock", "dynamodb-sync", 1000, 1, 64_800),
    ] {
        let mapping = &created(system)["mappings"][stream];
        assert_has(mapping, &always);
        let own = json!({
            "BatchSize": batch, "ParallelizationFactor": factor, "MaximumRecordAgeInSeconds": age,
            "FunctionArn": format!("arn:aws:lambda:{ACCOUNT}:function:{system}-{function}"),
            "DestinationConfig": {"OnFailure": {"Destination": format!("arn:aws:sqs:{ACCOUNT}:{system}-on-failure")}},
        });
        assert_has(mapping, &own);
    }
    assert_eq!(keys(&created("sportsbook")["mappings"]).len(), 1);
    assert_eq!(keys(&created("replica")["mappings"]).len(), 4);
}

#[test]
fn queues_keep_failures_for_two_weeks_encrypted_and_for_tls_alone() {
    for (system, encryption) in [
        ("sportsbook", json!({"SqsManagedSseEnabled": "true", "KmsMasterKeyId": null})),
        ("replica", json!({"KmsMasterKeyId": KEY})),
    ] {
        let queues = &created(system)["queues"];
        let names = ["dead-letters", "on-failure"].map(|name| format!("{system}-{name}"));
        assert_eq!(keys(queues), names.iter().map(String::as_str).collect());
        for (name, queue) in queues.as_object().unwrap() {
            let asked =
                json!({"MessageRetentionPeriod": "1209600", "VisibilityTimeout": "900", "Tags": {"system": system}});
            assert_has(queue, &asked);
            assert_has(queue, &encryption);
            let arn = json!(format!("arn:aws:sqs:{ACCOUNT}:{name}"));
            assert_eq!(queue["Policy"]["Statement"], only_tls("sqs:*", &arn));
        }
    }
}

fn only_tls(action: &str, resource: &Value) -> Value {
    json!([{
        "Sid": "OnlyTls", "Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }])
}

#[test]
fn the_archive_is_private_and_grows_cold() {
    let bucket = &created("sportsbook")["bucket"];
    let asked = json!({
        "versioning": "Enabled",
        "public": {"BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true, "RestrictPublicBuckets": true},
        "ownership": [{"ObjectOwnership": "BucketOwnerEnforced"}],
        "tags": {"system": "sportsbook"},
    });
    assert_has(bucket, &asked);
    let encryption =
        |system: &str| created(system)["bucket"]["encryption"][0]["ApplyServerSideEncryptionByDefault"].clone();
    assert_eq!(encryption("sportsbook"), json!({"SSEAlgorithm": "AES256"}));
    assert_eq!(encryption("replica"), json!({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}));
    let arn = "arn:aws:s3:::sportsbook-archive-123456789012-eu-west-1";
    assert_eq!(bucket["policy"]["Statement"], only_tls("s3:*", &json!([arn, format!("{arn}/*")])));
    let [age, letters] = &bucket["lifecycle"].as_array().unwrap()[..] else { panic!("{bucket:#}") };
    let transitions = json!([{"StorageClass": "STANDARD_IA", "Days": 30}, {"StorageClass": "GLACIER_IR", "Days": 90}]);
    let aging = json!({
        "Status": "Enabled", "Filter": {"Prefix": ""}, "Transitions": transitions,
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    });
    assert_has(age, &aging);
    assert!(age.get("Expiration").is_none(), "a backup is never dropped");
    let dropped = json!({"Status": "Enabled", "Filter": {"Prefix": "dead-letters/"}, "Expiration": {"Days": 30}});
    assert_has(letters, &dropped);
}

#[test]
fn every_function_is_there_with_its_environment_and_its_share_of_the_connections() {
    let functions = &created("replica")["functions"];
    for folder in std::fs::read_dir(workspace().join("functions")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(functions.get(format!("replica-{name}")).is_some(), "{name} is not in the template");
    }
    let shares = [
        ("kinesis-ingest", 2),
        ("dynamodb-sync", 8),
        ("backfill", 8),
        ("maintain", 1),
        ("recompute", 2),
        ("transform", 1),
        ("redrive", 1),
    ];
    for (name, share) in shares {
        let function = &functions[format!("replica-{name}")];
        let asked = json!({
            "Runtime": "provided.al2023", "Architectures": ["arm64"], "Concurrency": share,
            "Role": format!("arn:aws:iam::123456789012:role/replica-{name}-eu-west-1"),
        });
        assert_has(function, &asked);
        assert_eq!(function["Tags"]["system"], "replica");
        assert_eq!(function["VpcConfig"]["SubnetIds"].as_array().unwrap().len(), 1);
        let layer = function["Layers"][0]["Arn"].as_str().unwrap();
        assert!(layer.ends_with(":layer:replica-configuration:1"), "{layer}");
        let environment = json!({
            "MILLSTREAM_CONFIG": "/opt/millstream.toml", "DATABASE_AUTH": "iam", "DATABASE_SECRET_ARN": "",
            "DATABASE_USER": "millstream_writer", "DATABASE_NAME": "reporting", "DATABASE_CA_FILE": "/opt/rds.pem",
            "DEAD_LETTER_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/replica-dead-letters",
            "ARCHIVE_BUCKET": "replica-archive-123456789012-eu-west-1",
        });
        assert_has(&function["Environment"]["Variables"], &environment);
    }
    let redrive = &functions["replica-redrive"]["Environment"]["Variables"]["ON_FAILURE_QUEUE_URL"];
    assert_eq!(redrive, "https://sqs.eu-west-1.amazonaws.com/123456789012/replica-on-failure");
    let log = &created("replica")["log_groups"]["/millstream/replica"];
    assert_has(log, &json!({"retentionInDays": 30}));
    let secret = &created("sportsbook")["functions"]["sportsbook-kinesis-ingest"]["Environment"]["Variables"];
    assert_eq!(secret["DATABASE_AUTH"], "");
    assert!(secret["DATABASE_SECRET_ARN"].as_str().unwrap().contains(":secret:sportsbook/database"), "{secret:#}");
}

/// The variables that the functions read are those that the template sets: a name used in one of the two only would have no effect.
#[test]
fn the_environment_is_the_one_that_functions_read() {
    let source = std::fs::read_to_string(workspace().join("shared/src/config/environment.rs")).unwrap();
    let variables = &created("replica")["functions"]["replica-kinesis-ingest"]["Environment"]["Variables"];
    for name in keys(variables) {
        assert!(source.contains(&format!("\"{name}\"")), "{name} is read by nobody");
    }
}

#[test]
fn maintenance_totals_and_transforms_are_scheduled() {
    let schedules = created("sportsbook")["schedules"].as_array().unwrap();
    assert_eq!(schedules.len(), 3, "{schedules:#?}");
    let maintain = format!("arn:aws:lambda:{ACCOUNT}:function:sportsbook-maintain");
    let totals = format!("arn:aws:states:{ACCOUNT}:stateMachine:sportsbook-totals");
    let transforms = format!("arn:aws:states:{ACCOUNT}:stateMachine:sportsbook-transforms");
    for (arn, expression, age) in
        [(maintain, "rate(3 hours)", 3600), (totals, "rate(1 hour)", 3600), (transforms, "rate(5 minutes)", 300)]
    {
        let schedule = schedules.iter().find(|schedule| schedule["Target"]["Arn"] == *arn);
        let schedule = schedule.unwrap_or_else(|| panic!("{arn} is not among {schedules:#?}"));
        assert_has(schedule, &json!({"ScheduleExpression": expression, "State": "ENABLED"}));
        let target = json!({
            "RoleArn": "arn:aws:iam::123456789012:role/sportsbook-schedule-eu-west-1",
            "RetryPolicy": {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": age},
        });
        assert_has(&schedule["Target"], &target);
        // A name that is the logical id would collide with the next system's.
        assert!(schedule["Name"].as_str().unwrap().starts_with("sportsbook-default-"), "{schedule:#}");
        let statements = created("sportsbook")["roles"]["sportsbook-schedule-eu-west-1"].as_array().unwrap();
        let names =
            |resource: &Value| resource == &*arn || resource.as_array().is_some_and(|list| list.contains(&json!(arn)));
        assert!(statements.iter().any(|statement| names(&statement["Resource"])), "{statements:#?}");
    }
}

/// What is granted without a resource, because AWS knows none for it.
const EVERYWHERE: [&str; 3] = ["ec2:", "logs:", "dynamodb:ListStreams"];

#[test]
fn roles_may_what_they_need_and_nothing_else() {
    let roles = &created("replica")["roles"];
    for (role, statements) in roles.as_object().unwrap() {
        for statement in statements.as_array().unwrap() {
            let anywhere = statement["Resource"] == "*";
            for action in actions(statement) {
                assert!(!action.contains('*'), "{role}: {statement}");
                assert!(!anywhere || EVERYWHERE.iter().any(|known| action.starts_with(known)), "{role}: {statement}");
            }
        }
    }
    let granted = |role: &str| -> BTreeSet<&str> {
        roles[format!("replica-{role}-eu-west-1")].as_array().unwrap().iter().flat_map(actions).collect()
    };
    let network = granted("maintain");
    let own = |role: &str| -> BTreeSet<&str> { granted(role).difference(&network).copied().collect() };
    assert!(
        network.contains("rds-db:connect") && !network.iter().any(|action| action.starts_with("s3:")),
        "{network:?}"
    );
    let kinesis = [
        "kinesis:DescribeStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
    ];
    let writing = ["s3:PutObject", "sqs:SendMessage", "sqs:GetQueueAttributes", "kms:Decrypt", "kms:GenerateDataKey"];
    assert_eq!(own("kinesis-ingest"), kinesis.into_iter().chain(writing).collect());
    let redrive = own("redrive");
    let queue = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"];
    let dynamodb = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"];
    for action in kinesis.into_iter().chain(writing).chain(queue).chain(dynamodb).chain(["s3:GetObject"]) {
        assert!(redrive.contains(action), "redrive may not {action}");
    }
    // Each stream by itself, and the database by the one user.
    let resources: Vec<&Value> =
        roles["replica-redrive-eu-west-1"].as_array().unwrap().iter().map(|s| &s["Resource"]).collect();
    let streams = ["stream/bank", "table/Customers/stream/", "table/Orders/stream/", "table/Stock/stream/"];
    for stream in streams {
        assert!(
            resources.iter().any(|resource| resource.to_string().contains(stream)),
            "redrive does not read {stream}"
        );
    }
}

fn actions(statement: &Value) -> Vec<&str> {
    let action = &statement["Action"];
    let several = action.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(action));
    several.iter().filter_map(Value::as_str).collect()
}

/// A URL that was created since October 2025 needs both permissions, and a board without them shows nothing but 403.
#[test]
fn the_board_has_a_url_with_both_permissions_and_nothing_of_the_writer_s() {
    let statements = |system: &str| -> Vec<Value> {
        created(system)["board_policy"]["Statement"].as_array().unwrap_or(&Vec::new()).clone()
    };
    let url = &created("sportsbook")["board_url"];
    assert_has(url, &json!({"AuthType": "NONE", "InvokeMode": "BUFFERED"}));
    assert_eq!(created("replica")["board_url"]["AuthType"], "AWS_IAM");
    for (system, principal) in [("sportsbook", "*"), ("replica", "cloudfront.amazonaws.com")] {
        let granted = statements(system);
        let actions: BTreeSet<&str> = granted.iter().filter_map(|statement| statement["Action"].as_str()).collect();
        assert_eq!(actions, BTreeSet::from(["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"]), "{granted:#?}");
        assert!(granted.iter().all(|statement| statement["Principal"].to_string().contains(principal)), "{granted:#?}");
    }
    let function = &created("sportsbook")["functions"]["sportsbook-board"];
    assert_eq!(function["Concurrency"], 2);
    let environment = &function["Environment"]["Variables"];
    assert_has(environment, &json!({"DEAD_LETTER_QUEUE_URL": "", "ARCHIVE_BUCKET": "", "BOARD_IAM_ROLE": ""}));
    for (name, secret) in [("BOARD_SECRET_ARN", ":secret:sportsbook/board-"), ("DATABASE_SECRET_ARN", "board-database")]
    {
        assert!(environment[name].as_str().unwrap().contains(secret), "{environment:#}");
    }
    let iam = &created("replica")["functions"]["replica-board"]["Environment"]["Variables"];
    assert_has(
        iam,
        &json!({"BOARD_IAM_ROLE": "operator", "BOARD_SECRET_ARN": "", "DATABASE_USER": "millstream_board"}),
    );

    let role = created("sportsbook")["roles"]["sportsbook-board-eu-west-1"].to_string();
    for foreign in ["sqs:", "s3:", "lambda:", "sportsbook/database"] {
        assert!(!role.contains(foreign), "{foreign} in {role}");
    }
    let token = created("sportsbook")["board_tokens"]["operator"].as_str().unwrap();
    assert!(token.len() >= 22 && token.chars().all(|c| c.is_ascii_alphanumeric()), "{token}");
}

fn machine(name: &str) -> &'static Value {
    let machines = created("replica")["state_machines"].as_array().unwrap();
    assert_eq!(machines.len(), 3, "{machines:#?}");
    let machine = machines.iter().find(|machine| machine["name"] == name);
    machine.unwrap_or_else(|| panic!("{name} is not among {machines:#?}"))
}

#[test]
fn the_full_load_is_a_state_machine_of_the_function() {
    let machine = machine("replica-load");
    assert_eq!(machine["type"], "STANDARD");
    let piece = &machine["definition"]["States"]["Load"]["ItemProcessor"]["States"]["Piece"];
    assert_eq!(piece["Parameters"]["FunctionName"], "replica-backfill");
    let failed = &created("replica")["alarms"]["replica-load-failed"]["Dimensions"];
    assert_eq!(failed, &json!([{"Name": "StateMachineArn", "Value": machine["stateMachineArn"]}]));
}

#[test]
fn totals_are_a_state_machine_of_the_function() {
    let machine = machine("replica-totals");
    assert_eq!(machine["type"], "STANDARD");
    let states = &machine["definition"]["States"];
    let total = &states["Totals"]["ItemProcessor"]["States"]["Recompute"];
    for state in [&states["Check"], total, &states["Report"]] {
        assert_eq!(state["Parameters"]["FunctionName"], "replica-recompute");
    }
    let invoked = &created("replica")["roles"]["replica-totals-eu-west-1"][0];
    let function = format!("arn:aws:lambda:{ACCOUNT}:function:replica-recompute");
    assert_eq!(invoked, &json!({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": function}));
    let failed = &created("replica")["alarms"]["replica-totals-run-failed"]["Dimensions"];
    assert_eq!(failed, &json!([{"Name": "StateMachineArn", "Value": machine["stateMachineArn"]}]));
}

#[test]
fn transforms_are_a_state_machine_of_the_function() {
    let machine = machine("replica-transforms");
    assert_eq!(machine["type"], "STANDARD");
    assert_eq!(machine["definition"]["States"]["Run"]["Parameters"]["FunctionName"], "replica-transform");
    let invoked = &created("replica")["roles"]["replica-transforms-eu-west-1"][0];
    let function = format!("arn:aws:lambda:{ACCOUNT}:function:replica-transform");
    assert_eq!(invoked, &json!({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": function}));
    let failed = &created("replica")["alarms"]["replica-transforms-run-failed"]["Dimensions"];
    assert_eq!(failed, &json!([{"Name": "StateMachineArn", "Value": machine["stateMachineArn"]}]));
}

#[test]
fn endpoints_are_created_on_request() {
    let services = ["dynamodb", "kinesis-streams", "s3", "secretsmanager", "sqs"];
    let names = services.map(|service| format!("com.amazonaws.eu-west-1.{service}"));
    assert_eq!(created("sportsbook")["endpoints"], json!(names));
    assert_eq!(created("replica")["endpoints"], json!([]));
}
