"""This project's own lint rules for its stacks, each with the fault that it prevents.

A rule receives a stack (or a whole system) as CloudFormation would see it and reports what is wrong with it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from cloudformation import Stack


class Finding(NamedTuple):
    """A fault: where it is, which rule names it, and what to do."""

    place: str
    rule: str
    message: str


def of_stack(stack: Stack) -> Iterator[Finding]:
    """What is wrong with a stack, nested stacks included."""
    wrong = list(parameters(stack))
    yield from wrong
    if wrong:
        return
    for rule in (assertions, tags, only_tls, mappings, on_failure, retention, dashboards, watched):
        yield from rule(stack)
    for nested in stack.nested().values():
        yield from of_stack(nested)


def parameters(stack: Stack) -> Iterator[Finding]:
    """CloudFormation rejects unknown, missing and invalid parameters, but only on deployment."""
    declared = stack.source.get("Parameters", {})
    for name in stack.given.keys() - declared.keys():
        yield Finding(stack.name, "parameter", f"{name} is not a parameter of {stack.path.name}")
    for name, each in declared.items():
        if name not in stack.parameters:
            yield Finding(stack.name, "parameter", f"{name} has no default and is not set")
        elif fault := unfit(each, stack.parameters[name]):
            yield Finding(stack.name, "parameter", f"{name}: {fault}")


def unfit(declared: dict, value) -> str | None:
    """Why a value is not valid for a parameter."""
    if isinstance(value, (list, dict)):
        return None
    if "AllowedValues" in declared and str(value) not in map(str, declared["AllowedValues"]):
        return f"{value!r} is not one of {declared['AllowedValues']}"
    if "AllowedPattern" in declared and not re.fullmatch(declared["AllowedPattern"], str(value)):
        return f"{value!r} does not match {declared['AllowedPattern']}"
    if declared["Type"] == "Number":
        if not re.fullmatch(r"-?\d+(\.\d+)?", str(value)):
            return f"{value!r} is not a number"
        if not declared.get("MinValue", float("-inf")) <= float(value) <= declared.get("MaxValue", float("inf")):
            return f"{value} is out of range"
    return None


def assertions(stack: Stack) -> Iterator[Finding]:
    """The template's own Rules."""
    for name, rule in stack.source.get("Rules", {}).items():
        if "RuleCondition" in rule and not stack.truth(rule["RuleCondition"]):
            continue
        for each in rule["Assertions"]:
            if not stack.truth(each["Assert"]):
                yield Finding(f"{stack.name}.{name}", "assertion", each["AssertDescription"])


def tags(stack: Stack) -> Iterator[Finding]:
    """The owner of a resource and the cost of a system are found by tag."""
    for name, resource in stack.resources.items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(stack.region, resource["Type"]).schema
        tagged = resource["Properties"].get("Tags", [])
        pairs = tagged if isinstance(tagged, dict) else {tag["Key"]: tag["Value"] for tag in tagged}
        if "Tags" in schema["properties"] and pairs.get("system") != stack.parameters["System"]:
            yield Finding(f"{stack.name}.{name}", "tags", "missing tag `system` with the system's name")


def only_tls(stack: Stack) -> Iterator[Finding]:
    """Queues and buckets accept plain HTTP unless their policy denies it."""
    refusing = set()
    for kind, of in (("AWS::SQS::QueuePolicy", "Queues"), ("AWS::S3::BucketPolicy", "Bucket")):
        for policy in stack.of_type(kind).values():
            insecure = {"Bool": {"aws:SecureTransport": "false"}}
            denials = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Deny"]
            if any(each.get("Condition") == insecure and each["Principal"] == "*" for each in denials):
                named = policy[of] if isinstance(policy[of], list) else [policy[of]]
                refusing.update(each["Ref"] for each in named)
    for name in [*stack.of_type("AWS::SQS::Queue"), *stack.of_type("AWS::S3::Bucket")]:
        if name not in refusing:
            yield Finding(f"{stack.name}.{name}", "only-tls", "no policy rejects requests without TLS")


def mappings(stack: Stack) -> Iterator[Finding]:
    """Values that CloudFormation accepts, but that lose records or turn an outage into dead letters (AWS documentation:
    https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html)."""
    asked = {
        "StartingPosition": ("TRIM_HORIZON", "LATEST misses records while a mapping is created or changed"),
        "FunctionResponseTypes": (["ReportBatchItemFailures"], "otherwise the function's response is ignored"),
        "BisectBatchOnFunctionError": (True, "otherwise one record fails its batch until the record expires"),
        "MaximumRetryAttempts": (-1, "a limit turns a database outage into dead letters"),
        "MetricsConfig": ({"Metrics": ["EventCount"]}, "otherwise dropped records are not counted"),
    }
    for name, properties in stack.of_type("AWS::Lambda::EventSourceMapping").items():
        if stack.path.name != "stream.yaml":
            message = "only stream.yaml may map streams: it has the settings, the permissions and the connection budget"
            yield Finding(f"{stack.name}.{name}", "mapping", message)
        for key, (value, reason) in asked.items():
            if properties.get(key) != value:
                yield Finding(f"{stack.name}.{name}", "mapping", f"{key} must be {json.dumps(value)}: {reason}")


def on_failure(stack: Stack) -> Iterator[Finding]:
    """Lambda reports a discarded batch with the function's role; without the permission the batch is lost silently. (SAM
    would grant the permission to a role that it creates, if the destination has a `Type`.)"""
    for name, properties in stack.of_type("AWS::Lambda::EventSourceMapping").items():
        destination = properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        role = f"{properties['FunctionName']}-{stack.region}"
        sends = (
            statement
            for policy in stack.of_type("AWS::IAM::Policy").values()
            if role in policy["Roles"]
            for statement in policy["PolicyDocument"]["Statement"]
            if "sqs:SendMessage" in statement["Action"]
        )
        if destination is None:
            yield Finding(f"{stack.name}.{name}", "on-failure", "no destination for discarded batches")
        elif not any(statement["Resource"] == destination for statement in sends):
            yield Finding(f"{stack.name}.{name}", "on-failure", f"the role {role} may not send to {destination}")


def retention(stack: Stack) -> Iterator[Finding]:
    """Redrive reads discarded batches from the stream, where they must still be present."""
    for name, properties in stack.of_type("AWS::Lambda::EventSourceMapping").items():
        hours, age = int(stack.parameters.get("RetentionHours", 24)), int(properties.get("MaximumRecordAgeInSeconds", -1))
        if ":dynamodb:" in properties["EventSourceArn"] and hours != 24:
            yield Finding(f"{stack.name}.{name}", "retention", "DynamoDB keeps a stream's records for 24 hours")
        if not 0 < age < hours * 3600:
            message = f"MaximumRecordAgeInSeconds is {age}; it must be less than the retention, {hours * 3600}"
            yield Finding(f"{stack.name}.{name}", "retention", message)


def dashboards(stack: Stack) -> Iterator[Finding]:
    """CloudWatch accepts a dashboard as a string, which must be JSON."""
    for name, properties in stack.of_type("AWS::CloudWatch::Dashboard").items():
        try:
            json.loads(properties["DashboardBody"])
        except ValueError as error:
            yield Finding(f"{stack.name}.{name}", "dashboard", f"the body is not valid JSON: {error}")


def watched(stack: Stack) -> Iterator[Finding]:
    """Every function has alarms, with its timeout."""
    alarms = {
        nested["Parameters"]["FunctionName"]["Ref"]: nested["Parameters"]
        for nested in stack.of_type("AWS::CloudFormation::Stack").values()
        if nested["TemplateURL"] == "alarms/function.yaml"
    }
    for name, function in stack.of_type("AWS::Lambda::Function").items():
        if name not in alarms:
            yield Finding(f"{stack.name}.{name}", "watched", "no stack of alarms/function.yaml monitors it")
        elif str(alarms[name].get("TimeoutSeconds", function["Timeout"])) != str(function["Timeout"]):
            message = f"TimeoutSeconds of its alarms must be {function['Timeout']}"
            yield Finding(f"{stack.name}.{name}", "watched", message)


def of_system(stacks: list[Stack]) -> Iterator[Finding]:
    """The connection budget: every stream has the concurrency that it needs, and all functions together fit the database.

    If shards × ParallelizationFactor exceeds the reserved concurrency, invocations are throttled and records age; if the
    reservations exceed the connections, PostgreSQL rejects logins of users and functions alike.
    """
    needed: dict[str, int] = defaultdict(int)
    for each in everything(stacks):
        for mapping in each.of_type("AWS::Lambda::EventSourceMapping").values():
            shards, factor = int(each.parameters.get("Shards", 1)), int(mapping.get("ParallelizationFactor", 1))
            needed[str(mapping["FunctionName"])] += shards * factor
        functions = each.of_type("AWS::Lambda::Function")
        for machine in each.of_type("AWS::StepFunctions::StateMachine").values():
            for invoked in machine["DefinitionSubstitutions"].values():
                needed[functions[invoked["Ref"]]["FunctionName"]] += concurrency(machine)
    for each in everything(stacks):
        functions = each.of_type("AWS::Lambda::Function").values()
        reserved = {function["FunctionName"]: function.get("ReservedConcurrentExecutions") for function in functions}
        for function in (name for name, share in reserved.items() if share is None):
            yield Finding(each.name, "budget", f"{function} has no reserved concurrency, so its connections are unlimited")
        for function, wanted in needed.items():
            if int(reserved.get(function) or 0) < wanted and function in reserved:
                message = f"{function} needs {wanted} connections, but {reserved[function]} are reserved for it"
                yield Finding(each.name, "budget", message)
        total, most = sum(int(share or 0) for share in reserved.values()), int(each.parameters.get("MaxConnections", 0))
        if total > most:
            yield Finding(each.name, "budget", f"the functions may use {total} connections, but MaxConnections is {most}")


def everything(stacks: list[Stack]) -> Iterator[Stack]:
    """The stacks and those nested in them."""
    for stack in stacks:
        yield stack
        yield from everything(list(stack.nested().values()))


def concurrency(machine: dict) -> int:
    """How many functions the maps of a state machine run concurrently."""
    definition = machine["DefinitionString"]
    definition = definition if isinstance(definition, str) else "\n".join(definition["Fn::Join"][1])
    states = json.loads(definition)["States"].values()
    return sum(state["MaxConcurrency"] for state in states if state["Type"] == "Map")
