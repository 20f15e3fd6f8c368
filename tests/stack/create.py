"""Creates a system's stacks in moto, translated as CloudFormation would, and prints what is there then as JSON.

    create.py SYSTEM

What the stacks do not make (the streams, the network) is made before, and takes the place of the example ids of the parameter file.
"""

import io
import json
import logging
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import boto3
from moto import mock_aws

INFRA = Path(__file__).parents[2] / "infra"
sys.path.insert(0, str(INFRA / "local"))

import cloudformation
import moto_types
import systems

TEMPLATES = "templates"


def main(system: str) -> None:
    logging.getLogger("botocore").setLevel(logging.ERROR)
    # Of what moto does not make a stack may hold nothing.
    warnings.filterwarnings("error", message=".*not supported by moto")
    with mock_aws():
        stacks = [stack for stack in systems.stacks(INFRA, system) if stack.template.name != "database.yaml"]
        aws = Aws(stacks[0].region)
        aws.put_code()
        for stack in stacks:
            aws.create(stack)
        json.dump(aws.everything(system), sys.stdout, indent=1, default=str)


class Aws:
    """A local AWS in this process."""

    def __init__(self, region: str):
        self.region = region
        self.network = self.make_network()

    def client(self, service: str):
        return boto3.client(service, self.region)

    def make_network(self) -> dict[str, str]:
        ec2 = self.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(VpcId=vpc, GroupName="functions", Description="functions")["GroupId"]
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        return {"VpcId": vpc, "SubnetIds": subnet, "SecurityGroupIds": group, "RouteTableIds": table}

    def put_code(self) -> None:
        """What the build would have put where the translation says that code is."""
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as file:
            file.writestr("bootstrap", "")
        bucket, key = cloudformation.CODE.removeprefix("s3://").split("/")
        self.make_bucket(bucket)
        self.make_bucket(TEMPLATES)
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=body.getvalue())

    def make_bucket(self, name: str) -> None:
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": self.region})

    def create(self, declared: systems.Stack) -> None:
        """Creates a stack as SAM does: nested templates are uploaded, then the outer one is created."""
        parameters = {name: self.at_hand(name, value) for name, value in declared.parameters.items()}
        stack = cloudformation.Stack(declared.template, declared.name, self.region, parameters)
        with tempfile.TemporaryDirectory() as folder:
            template = json.loads(cloudformation.write(stack, Path(folder)).read_text())
            for path in Path(folder).iterdir():
                self.client("s3").put_object(Bucket=TEMPLATES, Key=path.name, Body=path.read_bytes())
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::CloudFormation::Stack":
                key = resource["Properties"]["TemplateURL"]
                resource["Properties"]["TemplateURL"] = f"https://s3.amazonaws.com/{TEMPLATES}/{key}"
        self.client("cloudformation").create_stack(
            StackName=declared.name.replace(".", "-"),
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )

    def at_hand(self, name: str, value: str) -> str:
        """The values for the parameter file's placeholders."""
        if name in self.network:
            return self.network[name]
        if name.endswith("StreamArn"):
            return self.make_stream(value)
        return value

    def make_stream(self, arn: str) -> str:
        kind, name = arn.split(":")[2], arn.split("/")[1]
        if kind == "kinesis":
            self.client("kinesis").create_stream(StreamName=name, ShardCount=1)
            return arn
        table = self.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        return table["TableDescription"]["LatestStreamArn"]

    def board(self, system: str) -> dict:
        """The board's URL, the permissions to open it, and its tokens."""
        client, name = self.client("lambda"), f"{system}-board"
        secrets = self.client("secretsmanager")
        names = [each["Name"] for each in secrets.list_secrets()["SecretList"]]
        tokens = secrets.get_secret_value(SecretId=f"{system}/board")["SecretString"] if f"{system}/board" in names else "{}"
        return {
            "board_url": client.get_function_url_config(FunctionName=name),
            "board_policy": json.loads(client.get_policy(FunctionName=name)["Policy"]),
            "board_tokens": json.loads(tokens),
        }

    def everything(self, system: str) -> dict:
        """What is there, by kind and name."""
        return {
            "functions": self.functions(),
            "mappings": {
                mapping["EventSourceArn"].split("/")[1]: mapping
                for mapping in self.client("lambda").list_event_source_mappings()["EventSourceMappings"]
            },
            "queues": self.queues(),
            "bucket": self.bucket(system),
            "schedules": self.schedules(),
            "alarms": {each["AlarmName"]: each for each in self.client("cloudwatch").describe_alarms()["MetricAlarms"]},
            "dashboard": json.loads(self.client("cloudwatch").get_dashboard(DashboardName=system)["DashboardBody"]),
            "roles": self.roles(),
            "state_machines": self.state_machines(),
            "log_groups": {each["logGroupName"]: each for each in self.client("logs").describe_log_groups()["logGroups"]},
            **self.board(system),
            "endpoints": sorted(
                each["ServiceName"] for each in self.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
            ),
        }

    def functions(self) -> dict:
        client, found = self.client("lambda"), {}
        for configuration in client.list_functions()["Functions"]:
            name = configuration["FunctionName"]
            concurrency = client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
            tags = client.list_tags(Resource=configuration["FunctionArn"])["Tags"]
            found[name] = {**configuration, "Concurrency": concurrency, "Tags": tags}
        return found

    def queues(self) -> dict:
        client, found = self.client("sqs"), {}
        for url in client.list_queues()["QueueUrls"]:
            attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            policy = json.loads(attributes.get("Policy", "{}"))
            tags = client.list_queue_tags(QueueUrl=url).get("Tags")
            found[url.rsplit("/", 1)[1]] = {**attributes, "Policy": policy, "Tags": tags}
        return found

    def bucket(self, system: str) -> dict:
        client, name = self.client("s3"), f"{system}-archive-{cloudformation.ACCOUNT}-{self.region}"
        encryption = client.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        return {
            "encryption": encryption,
            "versioning": client.get_bucket_versioning(Bucket=name)["Status"],
            "public": client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            "lifecycle": client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
            "ownership": client.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"],
            "policy": json.loads(client.get_bucket_policy(Bucket=name)["Policy"]),
            "tags": moto_types.pairs(client.get_bucket_tagging(Bucket=name)["TagSet"]),
        }

    def schedules(self) -> list[dict]:
        client = self.client("scheduler")
        return [client.get_schedule(Name=each["Name"]) for each in client.list_schedules()["Schedules"]]

    def roles(self) -> dict:
        """The statements of each role, from all its policies."""
        return {role["RoleName"]: self.statements(role["RoleName"]) for role in self.client("iam").list_roles()["Roles"]}

    def statements(self, role: str) -> list[dict]:
        client = self.client("iam")
        documents = [
            client.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for name in client.list_role_policies(RoleName=role)["PolicyNames"]
        ]
        for attached in client.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            version = client.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
            policy = client.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)
            documents.append(policy["PolicyVersion"]["Document"])
        return [statement for document in documents for statement in document["Statement"]]

    def state_machines(self) -> list[dict]:
        client = self.client("stepfunctions")
        arns = [each["stateMachineArn"] for each in client.list_state_machines()["stateMachines"]]
        machines = [client.describe_state_machine(stateMachineArn=arn) for arn in arns]
        return [{**machine, "definition": json.loads(machine["definition"])} for machine in machines]


if __name__ == "__main__":
    main(sys.argv[1])
