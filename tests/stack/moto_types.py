"""What moto's CloudFormation leaves out: types of resources that moto's services know and its stacks do not make, or make in part.

Each is made through the service's own API, with the properties that the template has. Importing this module is enough.
"""

import json

import boto3
from moto.awslambda.utils import make_function_arn
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.s3.models import FakeBucket


# moto takes the second part of a model's module for its service.
MODULE = "tests.stack.moto_types"


class Made(CloudFormationModel):
    """A resource that moto's service keeps; of it CloudFormation knows a name and perhaps an ARN."""

    __module__ = MODULE

    def __init__(self, name: str, arn: str = ""):
        self.physical_resource_id, self.arn = name, arn

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Arn"

    def get_cfn_attribute(self, _attribute: str) -> str:
        return self.arn


def resource(kind: str, name_property: str = ""):
    """Makes moto's CloudFormation create a type of resource with a function. moto asks the direct subclasses of its model, the
    last one of a type."""

    def register(make):
        class Model(CloudFormationModel):
            __module__ = MODULE

            @staticmethod
            def cloudformation_type() -> str:
                return kind

            @staticmethod
            def cloudformation_name_type() -> str:
                return name_property

            @classmethod
            def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
                properties = cloudformation_json["Properties"]
                # moto asks the first model of a type for the property that names it, and some name a wrong one.
                name = properties.get(name_property, resource_name)
                return make(name, properties, account_id, region_name, **kwargs) or Made(name)

        return Model

    return register


@resource("AWS::Lambda::Function", "FunctionName")
def function(name, properties, account, region, **_kwargs):
    client, reserved = boto3.client("lambda", region), properties.pop("ReservedConcurrentExecutions", None)
    # CloudFormation makes a text of a number where the API wants one.
    variables = {key: str(value) for key, value in properties["Environment"]["Variables"].items()}
    asked = properties | {"Environment": {"Variables": variables}, "Tags": pairs(properties["Tags"])}
    client.create_function(**asked | {"FunctionName": name})
    if reserved is not None:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    return Made(name, make_function_arn(region, account, name))


class MadeUrl(Made):
    """A function URL, which has its address as an attribute."""

    __module__ = MODULE

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "FunctionUrl"

    def get_cfn_attribute(self, _attribute: str) -> str:
        return self.physical_resource_id


@resource("AWS::Lambda::Url")
def url(_name, properties, _account, region, **_kwargs):
    asked = {"FunctionName": properties["TargetFunctionArn"], "AuthType": properties["AuthType"]}
    made = boto3.client("lambda", region).create_function_url_config(**asked, InvokeMode=properties["InvokeMode"])
    return MadeUrl(made["FunctionUrl"])


@resource("AWS::Lambda::Permission")
def permission(name, properties, _account, region, **_kwargs):
    asked = {key: properties[key] for key in ("FunctionName", "Action", "Principal", "SourceArn") if key in properties}
    boto3.client("lambda", region).add_permission(**asked, StatementId=name)


@resource("AWS::SecretsManager::Secret", "Name")
def secret(name, properties, _account, region, **_kwargs):
    client, generated = boto3.client("secretsmanager", region), properties["GenerateSecretString"]
    asked = {key: generated[key] for key in ("PasswordLength", "ExcludePunctuation")}
    text = json.loads(generated["SecretStringTemplate"])
    text[generated["GenerateStringKey"]] = client.get_random_password(**asked)["RandomPassword"]
    made = client.create_secret(Name=name, SecretString=json.dumps(text), Tags=properties["Tags"])
    return Made(made["ARN"])


@resource("AWS::Lambda::LayerVersion", "LayerName")
def layer(name, properties, _account, region, **_kwargs):
    made = boto3.client("lambda", region).publish_layer_version(**properties | {"LayerName": name})
    return Made(made["LayerVersionArn"])


@resource("AWS::IAM::Role", "RoleName")
def role(name, properties, _account, region, **_kwargs):
    client, trust = boto3.client("iam", region), json.dumps(properties["AssumeRolePolicyDocument"])
    made = client.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=properties["Tags"])
    for arn in properties.get("ManagedPolicyArns", []):
        client.attach_role_policy(RoleName=name, PolicyArn=arn)
    for policy in properties.get("Policies", []):
        put_policy(client, name, policy)
    return Made(name, made["Role"]["Arn"])


@resource("AWS::IAM::Policy")
def inline_policy(_name, properties, _account, region, **_kwargs):
    for name in properties["Roles"]:
        put_policy(boto3.client("iam", region), name, properties)


def put_policy(client, role_name, policy):
    document = json.dumps(policy["PolicyDocument"])
    client.put_role_policy(RoleName=role_name, PolicyName=policy["PolicyName"], PolicyDocument=document)


@resource("AWS::StepFunctions::StateMachine", "StateMachineName")
def state_machine(name, properties, _account, region, **_kwargs):
    definition = properties["DefinitionString"]
    for key, value in properties["DefinitionSubstitutions"].items():
        definition = definition.replace(f"${{{key}}}", value)
    logging = properties["LoggingConfiguration"]
    made = boto3.client("stepfunctions", region).create_state_machine(
        name=name,
        definition=definition,
        roleArn=properties["RoleArn"],
        type=properties["StateMachineType"],
        loggingConfiguration={
            "level": logging["Level"],
            "destinations": [
                {"cloudWatchLogsLogGroup": {"logGroupArn": each["CloudWatchLogsLogGroup"]["LogGroupArn"]}}
                for each in logging["Destinations"]
            ],
        },
    )
    return Made(made["stateMachineArn"])


@resource("AWS::SQS::QueuePolicy")
def queue_policy(_name, properties, _account, region, **_kwargs):
    for url in properties["Queues"]:
        policy = json.dumps(properties["PolicyDocument"])
        boto3.client("sqs", region).set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})


@resource("AWS::S3::BucketPolicy")
def bucket_policy(_name, properties, _account, region, **_kwargs):
    policy = json.dumps(properties["PolicyDocument"])
    boto3.client("s3", region).put_bucket_policy(Bucket=properties["Bucket"], Policy=policy)


@resource("AWS::S3::Bucket", "BucketName")
def bucket(name, properties, account, region, **kwargs):
    made = FakeBucket.create_from_cloudformation_json(name, {"Properties": properties}, account, region, **kwargs)
    s3 = boto3.client("s3", region)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
    s3.put_public_access_block(
        Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"]
    )
    s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    rules = [lifecycle(rule) for rule in properties["LifecycleConfiguration"]["Rules"]]
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    return made


def lifecycle(rule: dict) -> dict:
    """A rule as S3's API has it: CloudFormation has other names for the same."""
    made = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "Transitions" in rule:
        transitions = rule["Transitions"]
        made["Transitions"] = [{"StorageClass": t["StorageClass"], "Days": t["TransitionInDays"]} for t in transitions]
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": rule["ExpirationInDays"]}
    same = ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
    return made | {key: rule[key] for key in same if key in rule}


@resource("AWS::CloudWatch::Alarm", "AlarmName")
def alarm(name, properties, _account, region, **_kwargs):
    boto3.client("cloudwatch", region).put_metric_alarm(**properties | {"AlarmName": name})


@resource("AWS::Scheduler::Schedule", "Name")
def schedule(name, properties, _account, region, **_kwargs):
    boto3.client("scheduler", region).create_schedule(**properties | {"Name": name})


def pairs(tags: list[dict]) -> dict:
    """Tags as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in tags}


def without_no_value(clean_json):
    """CloudFormation leaves AWS::NoValue out of a list; moto makes it a null."""

    def cleaned(resource_json, resources_map):
        value = clean_json(resource_json, resources_map)
        return [each for each in value if each is not None] if isinstance(resource_json, list) else value

    return cleaned


parsing.clean_json = without_no_value(parsing.clean_json)
