"""A stack as CloudFormation would see it, offline: SAM's resources translated, parameters, conditions and functions evaluated.

cfn-lint overlooks faults in what SAM generates from a template, so the translation is linted and created locally. What only
an account knows (the ARN of a resource that does not exist yet) stays unchanged.
"""

import json
import re
from functools import cached_property
from pathlib import Path

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ACCOUNT = "123456789012"
NO_VALUE = {"Ref": "AWS::NoValue"}
# Where the build would put code: the translator rejects folders.
CODE = "s3://code/code.zip"


class Stack:
    """A template with the parameters that it is deployed with."""

    def __init__(self, path: Path, name: str, region: str, given: dict[str, str]):
        self.path, self.name, self.region, self.given = path, name, region, given
        self.source = yaml_parse(path.read_text())

    @cached_property
    def parameters(self) -> dict:
        """Every parameter's value; parameters without a value and a default are left out."""
        declared = self.source.get("Parameters", {})
        defaults = {name: each["Default"] for name, each in declared.items() if "Default" in each}
        values = {**defaults, **self.given}
        return {name: self._typed(declared.get(name, {}), value) for name, value in values.items()}

    @staticmethod
    def _typed(declared: dict, value):
        kind = declared.get("Type", "String")
        return str(value).split(",") if kind.startswith("List<") or kind == "CommaDelimitedList" else value

    @cached_property
    def template(self) -> dict:
        """The template with SAM's resources translated."""
        template = json.loads(json.dumps(self.source, default=str))
        transforms = template.get("Transform", [])
        if "AWS::Serverless-2016-10-31" not in transforms:
            return template
        for resource in template["Resources"].values():
            properties = resource.get("Properties", {})
            if resource["Type"] == "AWS::Serverless::LayerVersion":
                properties["ContentUri"] = CODE
            elif resource["Type"] == "AWS::Serverless::StateMachine":
                definition = self.path.parent / properties.pop("DefinitionUri")
                properties["Definition"] = json.loads(definition.read_text())
        template["Globals"]["Function"]["CodeUri"] = CODE
        values = {name: value for name, value in self.parameters.items() if not isinstance(value, list)}
        translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=self.region))
        translated = translator.translate(template, parameter_values=values)
        translator.metrics.publish()  # to no destination; otherwise it complains at the end
        return translated

    @cached_property
    def resources(self) -> dict[str, dict]:
        """The resources that are created, by logical ID, evaluated as far as possible."""
        made = {}
        for name, resource in self.template["Resources"].items():
            if "Condition" not in resource or self.holds(resource["Condition"]):
                made[name] = {**resource, "Properties": self.value(resource.get("Properties", {}))}
        return made

    def of_type(self, kind: str) -> dict[str, dict]:
        """The properties of the resources of a type, by logical id."""
        return {name: each["Properties"] for name, each in self.resources.items() if each["Type"] == kind}

    def nested(self) -> dict[str, "Stack"]:
        """The nested stacks, by logical ID."""
        return {
            name: Stack(self.path.parent / each["TemplateURL"], f"{self.name}.{name}", self.region, each["Parameters"])
            for name, each in self.of_type("AWS::CloudFormation::Stack").items()
        }

    def holds(self, condition: str) -> bool:
        """Whether a condition is true."""
        return self.truth(self.template["Conditions"][condition])

    def truth(self, test) -> bool:
        """The truth of the condition functions that conditions and rules use."""
        (function, operands), = test.items()
        match function:
            case "Condition":
                return self.holds(operands)
            case "Fn::Equals":
                one, other = map(self.value, operands)
                return str(one) == str(other)
            case "Fn::Not":
                return not self.truth(operands[0])
            case "Fn::And":
                return all(map(self.truth, operands))
            case "Fn::Or":
                return any(map(self.truth, operands))
            case "Fn::Contains":
                return self.value(operands[1]) in self.value(operands[0])
        raise ValueError(f"{self.name}: unknown condition function {function}")

    def value(self, expression):
        """An expression, evaluated as far as possible; the rest stays unchanged."""
        if isinstance(expression, list):
            return [value for value in map(self.value, expression) if value != NO_VALUE]
        if not isinstance(expression, dict):
            return expression
        if len(expression) == 1:
            (function, operand), = expression.items()
            known = getattr(self, "_" + function.removeprefix("Fn::").lower(), None)
            if known and (function == "Ref" or function.startswith("Fn::")):
                return known(operand)
        evaluated = {key: self.value(value) for key, value in expression.items()}
        return {key: value for key, value in evaluated.items() if value != NO_VALUE}

    def _ref(self, name):
        pseudo = {
            "AWS::Region": self.region,
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::StackName": self.name.replace(".", "-"),
        }
        return self.parameters.get(name, pseudo.get(name, {"Ref": name}))

    def _if(self, operands):
        condition, yes, no = operands
        return self.value(yes if self.holds(condition) else no)

    def _findinmap(self, operands):
        found = self.template["Mappings"]
        for key in map(self.value, operands):
            found = found[key]
        return found

    def _join(self, operands):
        separator, parts = operands[0], self.value(operands[1])
        whole = isinstance(parts, list) and not any(isinstance(part, dict) for part in parts)
        return separator.join(map(str, parts)) if whole else {"Fn::Join": [separator, parts]}

    def _split(self, operands):
        text = self.value(operands[1])
        return text.split(operands[0]) if isinstance(text, str) else {"Fn::Split": [operands[0], text]}

    def _select(self, operands):
        parts = self.value(operands[1])
        return parts[int(operands[0])] if isinstance(parts, list) else {"Fn::Select": [operands[0], parts]}

    def _sub(self, operand):
        text, variables = operand if isinstance(operand, list) else (operand, {})
        variables = self.value(variables)

        def replaced(match: re.Match) -> str:
            value = variables.get(match[1], self._ref(match[1]))
            return match[0] if isinstance(value, dict) else str(value)

        return re.sub(r"\$\{([^!}]+)\}", replaced, text)


def write(stack: Stack, folder: Path) -> Path:
    """Writes the translated template and its nested templates as JSON into a folder; returns the outer one's path.

    The given parameters become defaults, because linters evaluate those.
    """
    template = json.loads(json.dumps(stack.template, default=str))
    for name, value in stack.given.items():
        template["Parameters"][name]["Default"] = value
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::CloudFormation::Stack":
            url = resource["Properties"]["TemplateURL"]
            inner = Stack(stack.path.parent / url, name, stack.region, {})
            resource["Properties"]["TemplateURL"] = write(inner, folder).name
    path = folder / f"{stack.path.stem}.json"
    path.write_text(json.dumps(template, indent=1))
    return path
