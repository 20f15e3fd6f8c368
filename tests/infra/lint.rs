//! `make lint` finds nothing in the templates, and finds every fault that is planted in a copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_tests::process::{target, tool, workspace};

/// A planted fault: its folder (faults in one folder do not hide each other), the file, what is replaced by what, and what
/// the lint must report.
struct Fault {
    folder: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    findings: &'static [&'static str],
}

const fn fault(
    folder: &'static str,
    file: &'static str,
    [right, wrong]: [&'static str; 2],
    findings: &'static [&'static str],
) -> Fault {
    Fault { folder, file, right, wrong, findings }
}

const FAULTS: &[Fault] = &[
    // What CloudFormation would reject.
    fault(
        "refused",
        "stream.yaml",
        ["BatchSize: !Ref BatchSize", "BatchSize: 20000"],
        &["Resources.Mapping.Properties.BatchSize: E3034"],
    ),
    fault(
        "refused",
        "stream.yaml",
        ["TRIM_HORIZON\n", "OLDEST\n"],
        &["Resources.Mapping.Properties.StartingPosition: E3031", "mapping: StartingPosition must be \"TRIM_HORIZON\""],
    ),
    fault(
        "refused",
        "stream.yaml",
        ["[ReportBatchItemFailures]", "[ReportBatchItemFailure]"],
        &["Resources.Mapping.Properties.FunctionResponseTypes.0: E3030"],
    ),
    fault(
        "refused",
        "template.yaml",
        [
            "  OnFailure:\n    Type: AWS::SQS::Queue\n",
            "  OnFailure:\n    Type: AWS::SQS::Queue\n    DependsOn: Redrive\n",
        ],
        &["Resources.Redrive: E3004: Circular Dependencies"],
    ),
    // The same in SAM's output, which cfn-lint overlooks in the template itself. Without `Type` SAM gives the role of a function
    // no permission to send to the destination, and never to a role that it does not create.
    fault(
        "refused",
        "template.yaml",
        [
            "      Description: Load Kinesis streams into tables\n",
            "      Description: Load Kinesis streams into tables\n      Events: {Again: {Type: Kinesis, Properties: {Stream: !Ref KinesisStreamArn, \
             StartingPosition: OLDEST, BatchSize: 20000, DestinationConfig: {OnFailure: {Destination: !GetAtt OnFailure.Arn}}}}}\n",
        ],
        &[
            "Resources.KinesisIngestAgain.Properties.BatchSize: E3034",
            "Resources.KinesisIngestAgain.Properties.StartingPosition: E3031",
            "KinesisIngestAgain: on-failure: the role",
            "KinesisIngestAgain: mapping: only stream.yaml may map streams",
        ],
    ),
    // What CloudFormation would accept.
    fault(
        "taken",
        "stream.yaml",
        ["MaximumRetryAttempts: -1", "MaximumRetryAttempts: 8"],
        &["mapping: MaximumRetryAttempts must be -1"],
    ),
    fault(
        "taken",
        "stream.yaml",
        ["      BisectBatchOnFunctionError: true\n", ""],
        &["mapping: BisectBatchOnFunctionError must be true"],
    ),
    fault(
        "taken",
        "stream.yaml",
        ["            Action: sqs:SendMessage\n", "            Action: sqs:GetQueueUrl\n"],
        &["on-failure: the role sportsbook-kinesis-ingest-eu-west-1 may not send"],
    ),
    fault(
        "taken",
        "parameters/sportsbook.toml",
        ["KinesisMaximumRecordAgeSeconds = 432000", "KinesisMaximumRecordAgeSeconds = 604800"],
        &["retention: MaximumRecordAgeInSeconds is 604800"],
    ),
    fault(
        "taken",
        "template.yaml",
        ["aws:SecureTransport: \"false\"", "aws:SecureTransport: \"true\""],
        &["DeadLetters: only-tls"],
    ),
    fault("taken", "alarms/queue.yaml", ["      Tags: [{Key: system, Value: !Ref System}]\n", ""], &["Visible: tags"]),
    fault(
        "taken",
        "dashboard.yaml",
        ["{\"widgets\": [", "{\"widgets\": [,"],
        &["dashboard: the body is not valid JSON"],
    ),
    fault(
        "taken",
        "template.yaml",
        ["        FunctionName: !Ref Maintain\n", "        FunctionName: !Ref Redrive\n"],
        &["Maintain: watched: no stack"],
    ),
    fault(
        "taken",
        "backfill.asl.json",
        ["\"MaxConcurrency\": 8", "\"MaxConcurrency\": 9"],
        &["budget: sportsbook-backfill needs 9 connections, but 8 are reserved"],
    ),
    fault(
        "taken",
        "recompute.asl.json",
        ["\"MaxConcurrency\": 2", "\"MaxConcurrency\": 3"],
        &["budget: sportsbook-recompute needs 3 connections, but 2 are reserved"],
    ),
    fault(
        "taken",
        "parameters/sportsbook.toml",
        ["KinesisShards = 4", "KinesisShards = 5"],
        &["budget: sportsbook-kinesis-ingest needs 10 connections, but 8 are reserved"],
    ),
    fault(
        "taken",
        "parameters/sportsbook.toml",
        ["MaxConnections = 40", "MaxConnections = 17"],
        &["budget: the functions may use 23 connections, but MaxConnections is 17"],
    ),
    fault(
        "taken",
        "template.yaml",
        ["      ReservedConcurrentExecutions: !Ref DynamodbConcurrency\n", ""],
        &["budget: sportsbook-dynamodb-sync has no reserved concurrency"],
    ),
    fault(
        "taken",
        "parameters/sportsbook.toml",
        ["DatabaseSecretArn", "DatabaseSecretKeyArn"],
        &["SecretIsNamed: assertion: DatabaseAuth=secret requires DatabaseSecretArn"],
    ),
    // What would only be noticed on deployment.
    fault(
        "parameters",
        "parameters/sportsbook.toml",
        ["KinesisSilentSeconds", "KinesisSilence"],
        &["parameter: KinesisSilence is not a parameter of template.yaml"],
    ),
    fault(
        "parameters",
        "parameters/sportsbook.toml",
        ["KinesisParallelizationFactor = 2", "KinesisParallelizationFactor = 11"],
        &["parameter: KinesisParallelizationFactor: 11 is out of range"],
    ),
    fault(
        "parameters",
        "parameters/sportsbook.toml",
        ["System = \"sportsbook\"\nVpcId", "VpcId"],
        &["sportsbook.database: parameter: System has no default and is not set"],
    ),
];

/// A copy of `infra/` with the faults of a folder.
fn planted(name: &str) -> PathBuf {
    let copy = target().join("faults").join(name).join("infra");
    std::fs::remove_dir_all(&copy).unwrap_or_default();
    copy_folder(&workspace().join("infra"), &copy);
    for fault in FAULTS.iter().filter(|fault| fault.folder == name) {
        let file = copy.join(fault.file);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(fault.right), "{} no longer holds {:?}", fault.file, fault.right);
        std::fs::write(file, text.replacen(fault.right, fault.wrong, 1)).unwrap();
    }
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &copy) } else { std::fs::copy(&path, &copy).map(drop).unwrap() }
    }
}

#[test]
fn the_templates_are_clean_and_every_planted_fault_is_found() {
    let infra = workspace().join("infra");
    let mut names: Vec<&str> = FAULTS.iter().map(|fault| fault.folder).collect();
    names.dedup();
    let folders: Vec<PathBuf> = names.iter().map(|name| planted(name)).collect();
    let mut lint = Command::new(tool("python"));
    lint.arg(infra.join("local/lint.py")).args(["--system", "sportsbook"]).arg(&infra).args(&folders);
    let output = lint.output().unwrap();
    let (found, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(output.status.code(), Some(1), "{found}\n{errors}");
    let of = |folder: &Path| -> Vec<&str> {
        found.lines().filter(|line| line.starts_with(&format!("{}: ", folder.display()))).collect()
    };
    assert_eq!(of(&infra), [""; 0]);
    for fault in FAULTS {
        let findings = of(&target().join("faults").join(fault.folder).join("infra"));
        for finding in fault.findings {
            let told = findings.iter().any(|line| line.contains(finding));
            assert!(told, "{finding} is not reported:\n{}\n{errors}", findings.join("\n"));
        }
    }
    std::fs::remove_dir_all(target().join("faults")).unwrap();
}

#[test]
fn the_other_systems_are_clean_too() {
    for system in ["replica", "portfolio"] {
        let mut lint = Command::new(tool("python"));
        let output = lint.arg(workspace().join("infra/local/lint.py")).args(["--system", system]).output().unwrap();
        assert!(
            output.status.success(),
            "{system}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
