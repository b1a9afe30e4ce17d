"""Reading templates, resolving functions, ordering resources: the engine without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_aws.cloudformation.evaluate import NO_VALUE, Scope, check_rules
from embedded_aws.cloudformation.graph import creation_order, dependencies
from embedded_aws.cloudformation.parameters import given_values, resolved_values, shown_values
from embedded_aws.cloudformation.template import TemplateError, parse


def scope(template: dict[str, Any] | None = None, **parameters: Any) -> Scope:
    def get_att(logical_id: str, attribute: str) -> Any:
        return ["x", "y"] if attribute == "List" else f"{logical_id}.{attribute}"

    def import_value(name: str) -> str:
        return {"shared": "exported"}[name]

    return Scope(
        {"Resources": {"Queue": {}, "Topic": {}}, **(template or {})},
        {"AWS::Region": "us-east-1", "AWS::Partition": "aws"},
        parameters,
        lambda logical_id: f"{logical_id}-id",
        get_att,
        import_value,
        lambda name: f"value of {name}",
    )


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"Ref": "Queue"}, "Queue-id"),
        ({"Ref": "Size"}, "4"),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, "Queue.Arn"),
        ({"Fn::GetAtt": "Queue.Nested.Arn"}, "Queue.Nested.Arn"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Size"}, {"Ref": "AWS::NoValue"}, 3]]}, "a-4-3"),
        ({"Fn::Join": ["/", {"Fn::GetAtt": ["Queue", "List"]}]}, "x/y"),
        ({"Fn::Sub": "arn:${AWS::Partition}:${Queue.Arn}/${Size}/${!Literal}"}, "arn:aws:Queue.Arn/4/${Literal}"),
        ({"Fn::Sub": ["${a}${Size}", {"a": {"Ref": "Topic"}}]}, "Topic-id4"),
        ({"Fn::Select": ["1", {"Fn::Split": [",", "a,b,c"]}]}, "b"),
        ({"Fn::FindInMap": ["Hosts", {"Ref": "AWS::Region"}, "Account"]}, "763104351884"),
        ({"Fn::FindInMap": ["Hosts", "nowhere", "Account", {"DefaultValue": "none"}]}, "none"),
        ({"Fn::Base64": "hello"}, "aGVsbG8="),
        ({"Fn::ImportValue": {"Fn::Sub": "shared"}}, "exported"),
        ({"Fn::If": ["Large", "big", "small"]}, "big"),
        ({"Fn::If": ["Small", "big", {"Ref": "AWS::NoValue"}]}, NO_VALUE),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [1, {"Ref": "AWS::NoValue"}, True]}, {"b": [1, True]}),
        ("{{resolve:ssm:/a/b:2}}!", "value of /a/b:2!"),
        ({"Fn::Sub": "{{resolve:ssm:/${Size}}}"}, "value of /4"),
        (
            {"Condition": {"Bool": {"aws:SecureTransport": "false"}}},
            {"Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        ),
    ],
)
def test_functions(node: Any, value: Any) -> None:
    template = {
        "Mappings": {"Hosts": {"us-east-1": {"Account": "763104351884"}}},
        "Conditions": {
            "Four": {"Fn::Equals": [{"Ref": "Size"}, 4]},
            "Large": {"Fn::And": [{"Condition": "Four"}, {"Fn::Not": [{"Condition": "Small"}]}]},
            "Small": {"Fn::Or": [{"Fn::Equals": [{"Ref": "Size"}, "1"]}, {"Fn::Equals": ["a", "b"]}]},
        },
    }
    assert scope(template, Size="4").resolve(node) == value


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"Fn::Transform": {}}, "does not know the function Fn::Transform"),
        ({"Ref": "Nobody"}, "unresolved reference Nobody"),
        ({"Fn::GetAtt": ["Nobody", "Arn"]}, "undefined resource Nobody"),
        ({"Fn::Select": [5, ["a"]]}, "cannot select value at index 5"),
        ({"Fn::FindInMap": ["A", "b", "c"]}, "Unable to get mapping for A::b::c"),
        ({"Fn::If": ["Nowhere", 1, 2]}, "unresolved condition Nowhere"),
        ("{{resolve:secretsmanager:x}}", "resolves only {{resolve:ssm:...}}"),
    ],
)
def test_faults_name_their_place(node: Any, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        scope().resolve(node)
    assert words in str(caught.value)


@given(st.recursive(st.text(alphabet="abc{}$"), lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner)))
def test_data_without_functions_stays_as_it_is(data: Any) -> None:
    assert scope().resolve(data) == data


def test_yaml_short_forms_equal_json() -> None:
    body = """
    Resources:
      Role:
        Type: AWS::IAM::Role
        Condition: Wanted
        Properties:
          Path: !Sub "/${AWS::Region}/"
          Description: !Join ["-", [!Ref Name, !GetAtt Other.Arn]]
          AssumeRolePolicyDocument: {Version: 2012-10-17}
    Conditions:
      Wanted: !Not [!Equals [!Ref Name, ""]]
    """
    parsed = parse(body)
    assert parsed["Resources"]["Role"]["Properties"] == {
        "Path": {"Fn::Sub": "/${AWS::Region}/"},
        "Description": {"Fn::Join": ["-", [{"Ref": "Name"}, {"Fn::GetAtt": ["Other", "Arn"]}]]},
        "AssumeRolePolicyDocument": {"Version": "2012-10-17"},
    }
    assert parse(json.dumps(parsed)) == parsed


def test_all_faults_of_a_template_come_together() -> None:
    template = {
        "Resourcess": {},
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {
            "A": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Forever"},
            "B": {"Properties": {}},
            "C": {"Type": "AWS::S3::Bucket", "Condition": "Missing", "CreationPolicy": {}},
        },
    }
    with pytest.raises(TemplateError) as caught:
        parse(json.dumps(template))
    for words in ("Resourcess", "Serverless", "DeletionPolicy Forever", "/Resources/B", "Missing", "CreationPolicy"):
        assert words in str(caught.value)


def test_order_follows_every_kind_of_reference() -> None:
    template = {
        "Parameters": {"P": {}},
        "Resources": {
            "A": {
                "Properties": {
                    "x": {
                        "Fn::Sub": "${B.Arn}${P}${AWS::Region}${own}",
                    }
                }
            },
            "B": {"Properties": {"x": [{"Fn::GetAtt": ["C", "Arn"]}]}},
            "C": {"Properties": {"x": {"Fn::If": ["Q", {"Ref": "D"}, {"Ref": "Off"}]}}},
            "D": {"DependsOn": ["E"]},
            "E": {"DependsOn": "F"},
            "F": {"Properties": {"x": {"Ref": "P"}}},
            "Off": {},
        },
    }
    template["Resources"]["A"]["Properties"]["x"] = {"Fn::Sub": ["${B.Arn}${P}${own}", {"own": {"Ref": "F"}}]}
    needs = dependencies(template, ["A", "B", "C", "D", "E", "F"])
    assert needs == {"A": {"B", "F"}, "B": {"C"}, "C": {"D"}, "D": {"E"}, "E": {"F"}, "F": set()}
    assert creation_order(needs) == ["F", "E", "D", "C", "B", "A"]


def test_unknown_names_and_cycles_are_errors() -> None:
    with pytest.raises(TemplateError, match=r"Unresolved resource dependencies \[Nobody\]"):
        dependencies({"Resources": {"A": {"Properties": {"x": {"Ref": "Nobody"}}}}}, ["A"])
    with pytest.raises(TemplateError, match=r"Circular dependency between resources: \[.*A.*\]"):
        creation_order({"A": {"B"}, "B": {"A"}})


PARAMETERS = {
    "Parameters": {
        "Size": {"Type": "Number", "Default": 3, "MaxValue": 5},
        "Stage": {"Type": "String", "AllowedValues": ["dev", "prod"], "Default": "dev"},
        "Secret": {"Type": "String", "NoEcho": True, "Default": "x"},
        "Zones": {"Type": "CommaDelimitedList", "Default": "a, b"},
        "Version": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/version"},
    }
}


def test_parameters_defaults_previous_values_and_ssm() -> None:
    raw = given_values(
        PARAMETERS,
        [{"ParameterKey": "Size", "UsePreviousValue": True}, {"ParameterKey": "Stage", "ParameterValue": "prod"}],
        {"Size": "5"},
    )
    resolved = resolved_values(PARAMETERS, raw, lambda name: f"read {name}")
    assert resolved == {"Size": "5", "Stage": "prod", "Secret": "x", "Zones": ["a", "b"], "Version": "read /version"}
    shown = {row["ParameterKey"]: row for row in shown_values(PARAMETERS, raw, resolved)}
    assert shown["Secret"]["ParameterValue"] == "****"
    assert shown["Version"] == {
        "ParameterKey": "Version",
        "ParameterValue": "/version",
        "ResolvedValue": "read /version",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Size": "9"}, "not greater than 5"),
        ({"Size": "many"}, "Parameter 'Size' must be a number"),
        ({"Stage": "test"}, r"must be one of AllowedValues \[dev, prod\]"),
        ({"Other": "1"}, r"Parameters: \[Other\] do not exist"),
    ],
)
def test_bad_parameters(given: dict[str, str], words: str) -> None:
    items = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    with pytest.raises(TemplateError, match=words):
        resolved_values(PARAMETERS, given_values(PARAMETERS, items, {}), str)


def test_missing_parameters_and_previous_values_are_named() -> None:
    template = {"Parameters": {"A": {"Type": "String"}, "B": {"Type": "String"}}}
    with pytest.raises(TemplateError, match=r"Parameters: \[A, B\] must have values"):
        given_values(template, [], {})
    with pytest.raises(TemplateError, match="A has no previous value"):
        given_values(template, [{"ParameterKey": "A", "UsePreviousValue": True}], {})


def test_rules_of_a_cdk_template() -> None:
    rules = {
        "Rules": {
            "CheckBootstrapVersion": {
                "Assertions": [
                    {
                        "Assert": {"Fn::Not": [{"Fn::Contains": [["1", "2"], {"Ref": "Version"}]}]},
                        "AssertDescription": "bootstrap again",
                    }
                ]
            }
        }
    }
    check_rules(scope(rules, Version="33"))
    with pytest.raises(TemplateError, match=r"bootstrap again \(rule CheckBootstrapVersion\)"):
        check_rules(scope(rules, Version="2"))
