"""Runs a state machine in moto, with the functions that it invokes outside.

    state_machine.py DEFINITION

For each invocation it prints a line of JSON, {"function", "payload"}, and reads the answer from a line of standard input: {"payload"},
or {"error": {"errorType", "errorMessage"}}. The last line that it prints is {"status", "output"}.
"""

import json
import re
import sys
import threading
import time
from pathlib import Path

import boto3
from moto import mock_aws
from moto.awslambda_simple.models import LambdaSimpleBackend

ONE_AT_A_TIME = threading.Lock()
ROLE = "arn:aws:iam::123456789012:role/states"


def invoke(_backend, function_name, _qualifier, body, _headers, response_headers):
    """Lambda's answer, from outside."""
    with ONE_AT_A_TIME:
        print(json.dumps({"function": function_name, "payload": json.loads(body)}), flush=True)
        answer = json.loads(sys.stdin.readline())
    if "error" in answer:
        response_headers["x-amz-function-error"] = "Unhandled"
        return json.dumps(answer["error"]).encode()
    return json.dumps(answer["payload"]).encode()


def definition(path: Path) -> str:
    """The definition as it is deployed, with shorter pauses: `${RecomputeFunction}` is the function `RecomputeFunction`."""
    text = re.sub(r"\$\{(\w+)\}", r"\1", path.read_text())
    return re.sub(r'"IntervalSeconds": \d+, "BackoffRate": \d+', '"IntervalSeconds": 1, "BackoffRate": 1', text)


def main(path: Path) -> None:
    LambdaSimpleBackend.invoke = invoke
    with mock_aws(config={"lambda": {"use_docker": False}, "stepfunctions": {"execute_state_machine": True}}):
        client = boto3.client("stepfunctions", "eu-west-1")
        machine = client.create_state_machine(name="machine", definition=definition(path), roleArn=ROLE)
        execution = client.start_execution(stateMachineArn=machine["stateMachineArn"], input="{}")
        while True:
            found = client.describe_execution(executionArn=execution["executionArn"])
            if found["status"] != "RUNNING":
                break
            time.sleep(0.05)
    print(json.dumps({"status": found["status"], "output": json.loads(found.get("output", "null"))}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
