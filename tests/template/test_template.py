"""What linters let pass: values that fit each other, and permissions that are as small as they look."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler import messages, zones
from handler.delivery import pacing
from handler.pauses import PAUSES
from tools import template as reading
from tools.paths import ROOT
from tools.template import of_type

DAY = 86_400
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
Stack = dict[str, Any]


def function(stack: Stack, name: str) -> dict[str, Any]:
    properties: dict[str, Any] = stack[f"{name}Function"]["Properties"]
    return properties


def event_source(stack: Stack) -> dict[str, Any]:
    (properties,) = of_type(stack, "AWS::Lambda::EventSourceMapping").values()
    return properties


def queue(stack: Stack, name: str) -> dict[str, Any]:
    properties: dict[str, Any] = stack[name]["Properties"]
    return properties


# ------------------------------------------------------------------ numbers
@pytest.mark.parametrize(
    ("parameter", "least", "most"),
    [
        ("RequestsPerMinute", 1, 150),
        ("MaximumConcurrency", 2, 1_000),
        ("ReceiveReservedConcurrency", 0, 99_999),
        ("SilentAfterHours", 1, 168),
        ("ThrottleRate", 1, 10_000),
        ("ThrottleBurst", 1, 5_000),
        ("ExpectedRequests", 1, 9_999_999),
        ("MonthlyBudget", 0, 9_999_999),
    ],
)
def test_what_must_be_a_whole_number_is_refused_before_anything_is_changed(
    template: Stack, parameter: str, least: int, most: int
) -> None:
    definition = template["Parameters"][parameter]
    assert definition["Type"] == "String"  # the type Number takes 1.5 and knows no pattern
    tried = range(-2, 2 * most + 2) if most < 200_000 else (*range(-2, 1_000), *range(most - 1_000, most + 1_000))
    accepted = [n for n in tried if re.fullmatch(definition["AllowedPattern"], str(n))]
    assert accepted == [n for n in tried if least <= n <= most]
    for wrong in ("1.5", "5.0", "1e2", "05", "+5", " 5", "five", ""):
        assert not re.fullmatch(definition["AllowedPattern"], wrong)
    assert str(least) in definition["ConstraintDescription"]


def test_no_other_number_has_to_be_whole(template: Stack) -> None:
    numbers = {
        name: definition for name, definition in template["Parameters"].items() if definition["Type"] == "Number"
    }
    assert numbers.keys() == {"ArrivalSpread", "LateAfterHours", "LogRetentionDays"}
    assert all(isinstance(days, int) for days in numbers["LogRetentionDays"]["AllowedValues"])
    read = (ROOT / "src/handler/settings.py").read_text("utf-8")
    assert re.findall(r'float\(env\["(\w+)"\]\)', read) == ["ARRIVAL_SPREAD", "LATE_AFTER_HOURS"]


def test_defaults_are_values_that_are_accepted(template: Stack) -> None:
    patterned = [definition for definition in template["Parameters"].values() if "AllowedPattern" in definition]
    assert len(patterned) > 10
    assert all(re.fullmatch(definition["AllowedPattern"], definition["Default"]) for definition in patterned)


def test_at_least_two_deliver_at_a_time(template: Stack, stack: Stack) -> None:
    # One at a time by reserved concurrency would let pollers receive what no function takes.
    assert not re.fullmatch(template["Parameters"]["MaximumConcurrency"]["AllowedPattern"], "1")
    assert event_source(stack)["ScalingConfig"]["MaximumConcurrency"] >= 2
    assert "ReservedConcurrentExecutions" not in function(stack, "Deliver")


def test_a_batch_fills_jobs(stack: Stack) -> None:
    source = event_source(stack)
    # A message holds one event at least, so that less would leave jobs of single events unfilled.
    assert messages.JOB_EVENTS <= source["BatchSize"] <= 10_000
    # SQS wants a window for batches over ten; a single event waits no longer than it.
    assert 1 <= source["MaximumBatchingWindowInSeconds"] <= 10
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_memory_and_window_are_the_cheapest_that_were_measured_to_do(stack: Stack) -> None:
    figures = json.loads((ROOT / "bench" / "results.json").read_text("utf-8"))
    sizes = [function(stack, name)["MemorySize"] for name in ("Receive", "Deliver")]
    assert [*sizes, event_source(stack)["MaximumBatchingWindowInSeconds"]] == figures["cost"]["cheapest"]


def test_deliver_lives_longer_than_it_may_wait(stack: Stack) -> None:
    variables = function(stack, "Deliver")["Environment"]["Variables"]
    interval = pacing.interval(int(variables["REQUESTS_PER_MINUTE"]), float(variables["ARRIVAL_SPREAD"]))
    worst_wait = event_source(stack)["ScalingConfig"]["MaximumConcurrency"] * interval
    assert worst_wait + PAUSES.connect + PAUSES.read < function(stack, "Deliver")["Timeout"] <= 900


def test_a_message_stays_hidden_while_it_is_worked_on(stack: Stack) -> None:
    least = 6 * function(stack, "Deliver")["Timeout"] + event_source(stack)["MaximumBatchingWindowInSeconds"]
    assert least <= queue(stack, "EventsQueue")["VisibilityTimeout"] <= 43_200


def test_sqs_itself_moves_nothing_for_a_week_of_failures(stack: Stack) -> None:
    """It would move messages without a reason, also those that are not to blame."""
    redrive = queue(stack, "EventsQueue")["RedrivePolicy"]
    assert redrive["maxReceiveCount"] * queue(stack, "EventsQueue")["VisibilityTimeout"] > 7 * 86_400
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}


def triggers(stack: Stack) -> set[tuple[str, str]]:
    """Function and queue of each event source mapping."""
    mappings = of_type(stack, "AWS::Lambda::EventSourceMapping").values()
    return {(mapping["FunctionName"]["Ref"], mapping["EventSourceArn"]["Fn::GetAtt"][0]) for mapping in mappings}


def test_a_function_that_sends_to_its_own_queue_may_do_so_more_than_sixteen_times(stack: Stack) -> None:
    # Lambda stops such a loop otherwise (developer guide, "Use Lambda recursive loop detection"), and nothing else may.
    for name in ("Receive", "Deliver"):
        own = {queue for function, queue in triggers(stack) if function == f"{name}Function"}
        sends = {queue for queue, actions in granted(stack, name).items() if "sqs:SendMessage" in actions}
        wanted = "Allow" if own & sends else None
        assert function(stack, name).get("RecursiveLoop") == wanted
    assert function(stack, "Deliver")["RecursiveLoop"] == "Allow"


def test_the_door_answers_before_the_platform_hangs_up(stack: Stack) -> None:
    assert function(stack, "Receive")["Timeout"] <= 30  # HTTP APIs wait 30 s, then answer 503 themselves


def test_the_door_is_throttled(stack: Stack) -> None:
    (stage,) = of_type(stack, "AWS::ApiGatewayV2::Stage").values()
    assert 0 < stage["DefaultRouteSettings"]["ThrottlingRateLimit"] <= 10_000
    assert 0 < stage["DefaultRouteSettings"]["ThrottlingBurstLimit"] <= 5_000


# --------------------------------------------------------- nothing gets lost
def test_messages_are_kept_for_fourteen_days(stack: Stack) -> None:
    assert {queue["MessageRetentionPeriod"] for queue in of_type(stack, "AWS::SQS::Queue").values()} == {14 * DAY}


def test_queues_take_the_largest_message(stack: Stack) -> None:
    for queue in of_type(stack, "AWS::SQS::Queue").values():
        assert queue["MaximumMessageSize"] == messages.MESSAGE_BYTES
        assert queue.get("FifoQueue", False) is False


@pytest.mark.parametrize("kind", ["AWS::SQS::Queue", "AWS::DynamoDB::Table", "AWS::SecretsManager::Secret"])
def test_what_holds_state_outlives_the_stack(template: Stack, kind: str) -> None:
    kept = [resource for resource in template["Resources"].values() if resource["Type"] == kind]
    assert kept
    assert all(resource["DeletionPolicy"] == "RetainExceptOnCreate" for resource in kept)
    assert all(resource["UpdateReplacePolicy"] == "Retain" for resource in kept)


def test_no_queue_may_use_the_events_queue_for_its_dead_letters(stack: Stack) -> None:
    assert queue(stack, "EventsQueue")["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}
    # It would have to name the events queue, which names it: docs/decisions/0026.
    assert "RedriveAllowPolicy" not in queue(stack, "DeadLetterQueue")


def test_two_stacks_fit_into_one_account(full_stack: Stack) -> None:
    names = {"QueueName", "TableName", "FunctionName", "RoleName", "LogGroupName", "TopicName", "AlarmName"}
    for name, resource in full_stack.items():
        fixed = {
            key for key, value in resource.get("Properties", {}).items() if key in names and isinstance(value, str)
        }
        assert not fixed, f"{name} has a fixed name"
        values = [value for key, value in resource.get("Properties", {}).items() if key in names]
        assert all("${AWS::StackName}" in value["Fn::Sub"] for value in values if "Fn::Sub" in value), name
    assert not any("Name" in secret for secret in of_type(full_stack, "AWS::SecretsManager::Secret").values())


def test_an_update_of_the_stack_leaves_the_secrets_as_they_were_typed_in(template: Stack) -> None:
    # CloudFormation writes a new version only where this property itself differs from the last template's.
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::SecretsManager::Secret":
            assert resource["Properties"]["SecretString"] == "{}", name
            assert "GenerateSecretString" not in resource["Properties"]


def test_a_second_stack_may_use_the_table_of_the_first_and_has_none_of_its_own(full_stack: Stack) -> None:
    assert not of_type(full_stack, "AWS::DynamoDB::Table")
    assert function(full_stack, "Deliver")["Environment"]["Variables"]["PACING_TABLE"] == "another-stack"
    (pace,) = (
        statement for statement in statements(full_stack["DeliverRole"]["Properties"]) if statement["Sid"] == "Pace"
    )
    assert pace["Action"] == ["dynamodb:GetItem", "dynamodb:UpdateItem"]
    assert pace["Resource"]["Fn::Sub"].endswith(":${AWS::AccountId}:table/${PacingTable}")


# ------------------------------------------------------------------- options
# Parameter, resource, path of what it sets there, and what that is without it and with it.
API_STAGE = "WebhookApiApiGatewayDefaultStage"
OPTIONS = [
    ("Tracing", "Active", "ReceiveFunction", "TracingConfig.Mode", "PassThrough", "Active"),
    ("Tracing", "Active", "DeliverFunction", "TracingConfig.Mode", "PassThrough", "Active"),
    ("ReceiveReservedConcurrency", 20, "ReceiveFunction", "ReservedConcurrentExecutions", None, 20),
    ("MaximumConcurrency", 9, "DeliverFunctionQueue", "ScalingConfig.MaximumConcurrency", 5, 9),
    ("LogLevel", "DEBUG", "ReceiveFunction", "Environment.Variables.POWERTOOLS_LOG_LEVEL", "INFO", "DEBUG"),
    ("LogLevel", "DEBUG", "DeliverFunction", "Environment.Variables.POWERTOOLS_LOG_LEVEL", "INFO", "DEBUG"),
    ("LogRetentionDays", 7, "AccessLogs", "RetentionInDays", 30, 7),
    ("DomainName", "hooks.relay.invalid", "WebhookDomain", "DomainName", None, "hooks.relay.invalid"),
    ("DomainName", "hooks.relay.invalid", "WebhookDomainMapping", "DomainName", None, {"Ref": "WebhookDomain"}),
    ("AlarmEmail", "ops@relay.invalid", "AlarmTopic", "Subscription.0.Endpoint", None, "ops@relay.invalid"),
    ("KmsKeyArn", KEY, "EventsQueue", "KmsMasterKeyId", None, KEY),
    ("KmsKeyArn", KEY, "OwnTable", "SSESpecification.KMSMasterKeyId", None, KEY),
    ("KmsKeyArn", KEY, "OwnTable", "SSESpecification.SSEEnabled", None, True),
    ("PacingTable", "other", "OwnTable", "BillingMode", "PAY_PER_REQUEST", None),
    ("WatchedSource2", "stripe", "Silent2Alarm", "Dimensions.1.Value", None, "stripe"),
    ("ThrottleRate", "20", API_STAGE, "DefaultRouteSettings.ThrottlingRateLimit", 500, 20),
    ("ThrottleBurst", "50", API_STAGE, "DefaultRouteSettings.ThrottlingBurstLimit", 1_000, 50),
    ("ExpectedRequests", "600", "RequestsAlarm", "Threshold", 10_000, 600),
    ("MonthlyBudget", "25", "Budget", "Budget.BudgetLimit.Amount", None, 25),
]


def at(stack: Stack, name: str, path: str) -> Any:
    """What is at ``path`` of a resource's properties; ``None`` if it or the resource is not there."""
    node: Any = stack.get(name, {}).get("Properties")
    for step in path.split("."):
        node = node[int(step)] if isinstance(node, list) else (node or {}).get(step)
    return node


@pytest.mark.parametrize(("parameter", "value", "name", "path", "without", "with_it"), OPTIONS)
def test_an_option_is_off_until_it_is_asked_for(
    stack: Stack, parameter: str, value: Any, name: str, path: str, without: Any, with_it: Any
) -> None:
    assert at(stack, name, path) == without
    assert at(reading.resources(**{parameter: value}), name, path) == with_it


def test_the_log_level_changes_without_the_code(stack: Stack) -> None:
    changed = reading.resources(LogLevel="WARNING")
    for name in ("Receive", "Deliver"):
        before, after = function(stack, name), function(changed, name)
        variables = before["Environment"]["Variables"] | {"POWERTOOLS_LOG_LEVEL": "WARNING"}
        assert after == before | {"Environment": {"Variables": variables}}
    assert {name for name in stack if stack[name] != changed[name]} == {"ReceiveFunction", "DeliverFunction"}


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ("KmsKeyArn", KEY, "arn:aws:kms:eu-west-1:123456789012:alias/relay"),
        ("DomainName", "hooks.shop.eu", "https://hooks.shop.eu/"),
        ("CertificateArn", "arn:aws:acm:eu-west-1:123456789012:certificate/1", "hooks.shop.eu"),
        ("AlarmEmail", "ops@relay.invalid", "ops"),
        ("PacingTable", "relay-OwnTable-1ABC", "arn:aws:dynamodb:eu-west-1:123456789012:table/relay"),
        ("PhoneRegion", "DE", "Germany"),
        ("TimeZone", "America/Argentina/Buenos_Aires", "europe/paris"),
        ("TimeZone", "Etc/GMT+5", "+02:00"),
    ],
)
def test_a_value_that_could_not_work_is_refused_before_anything_is_changed(
    template: Stack, parameter: str, good: str, bad: str
) -> None:
    pattern = template["Parameters"][parameter]["AllowedPattern"]
    assert re.fullmatch(pattern, good)
    assert re.fullmatch(pattern, template["Parameters"][parameter]["Default"])
    assert not re.fullmatch(pattern, bad)


def test_a_zone_has_the_form_that_the_functions_accept(template: Stack) -> None:
    assert template["Parameters"]["TimeZone"]["AllowedPattern"] == f"^{zones.FORM}$"


@pytest.mark.parametrize(
    ("rule", "parameter", "needed"),
    [
        ("DomainWithItsCertificate", "DomainName", "CertificateArn"),
        ("BudgetWithItsAddress", "MonthlyBudget", "AlarmEmail"),
    ],
)
def test_an_option_without_what_it_needs_is_refused_before_anything_is_changed(
    template: Stack, rule: str, parameter: str, needed: str
) -> None:
    written = template["Rules"][rule]
    assert parameter in str(written["RuleCondition"])
    assert needed in str(written["Assertions"][0]["Assert"])


def test_a_budget_writes_to_the_alarms_address_at_both_thresholds(full_stack: Stack) -> None:
    budget = full_stack["Budget"]["Properties"]
    assert (budget["Budget"]["BudgetType"], budget["Budget"]["TimeUnit"]) == ("COST", "MONTHLY")
    notified = {
        (notification["Notification"]["Threshold"], subscriber["Address"])
        for notification in budget["NotificationsWithSubscribers"]
        for subscriber in notification["Subscribers"]
    }
    assert notified == {(80, "ops@relay.invalid"), (100, "ops@relay.invalid")}
    # It is replaced when the address changes, and a name of its own would then be taken.
    assert "BudgetName" not in budget["Budget"]


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov", "aws-eusc"])
def test_no_budget_is_made_where_dollars_or_the_service_are_missing(partition: str) -> None:
    options = {"MonthlyBudget": "25", "AlarmEmail": "ops@relay.invalid"}
    assert "Budget" in reading.resources(**options)
    assert "Budget" not in reading.resources(**options, **{"AWS::Partition": partition})


# ---------------------------------------------------------------- encryption
def test_everything_at_rest_is_encrypted(stack: Stack) -> None:
    assert all(queue["SqsManagedSseEnabled"] is True for queue in of_type(stack, "AWS::SQS::Queue").values())
    # DynamoDB encrypts every table; SSEEnabled without a key of one's own means AWS's in the account, which is billed.
    assert all("SSESpecification" not in table for table in of_type(stack, "AWS::DynamoDB::Table").values())


def test_a_key_of_the_users_encrypts_all_of_it(full_stack: Stack) -> None:
    field = {
        "AWS::SQS::Queue": "KmsMasterKeyId",
        "AWS::SecretsManager::Secret": "KmsKeyId",
        "AWS::Logs::LogGroup": "KmsKeyId",
        "AWS::Lambda::Function": "KmsKeyArn",
        "AWS::SNS::Topic": "KmsMasterKeyId",
    }
    for kind, name in field.items():
        assert all(resource[name].startswith("arn:aws:kms:") for resource in of_type(full_stack, kind).values()), kind
    for role in of_type(full_stack, "AWS::IAM::Role").values():
        assert "UseKey" in {statement["Sid"] for statement in statements(role)}


def test_alarms_without_a_key_of_ones_own_are_under_none_that_cloudwatch_cannot_use() -> None:
    (topic,) = of_type(reading.resources(AlarmEmail="ops@relay.invalid"), "AWS::SNS::Topic").values()
    assert "KmsMasterKeyId" not in topic


def test_the_function_that_uses_the_table_may_use_its_key_through_dynamodb_only(full_stack: Stack) -> None:
    (use,) = (
        statement
        for statement in statements(full_stack["DeliverRole"]["Properties"])
        if statement["Sid"] == "UseKeyForTable"
    )
    # DynamoDB guide, "Usage notes for encryption at rest", ReEncrypt* and GenerateDataKey* written out.
    wanted = ["Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo"]
    wanted += ["GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "DescribeKey", "CreateGrant"]
    assert use["Action"] == [f"kms:{name}" for name in wanted]
    assert use["Resource"] == KEY
    ((operator, condition),) = use["Condition"].items()
    assert operator == "StringEquals"
    services = {service["Fn::Sub"] for service in condition["kms:ViaService"]}
    assert services == {f"dynamodb.${{AWS::Region}}.{suffix}" for suffix in ("amazonaws.com", "${AWS::URLSuffix}")}
    receive = {statement["Sid"] for statement in statements(full_stack["ReceiveRole"]["Properties"])}
    assert "UseKeyForTable" not in receive


def key_policy() -> dict[str, dict[str, Any]]:
    """The statements of the key policy that docs/settings.md gives to paste, by name."""
    (text,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/settings.md").read_text("utf-8"), re.S)
    return {statement["Sid"]: statement for statement in json.loads(text)["Statement"]}


def test_the_key_policy_to_paste_lets_logs_and_alarms_use_the_key() -> None:
    policy = key_policy()
    services = {name: statement["Principal"].get("Service") for name, statement in policy.items()}
    assert services == {
        "PoliciesOfTheAccount": None,
        "Logs": "logs.eu-west-1.amazonaws.com",
        "Alarms": "cloudwatch.amazonaws.com",
    }
    assert {"kms:Decrypt", "kms:GenerateDataKey*"} == set(policy["Alarms"]["Action"])
    assert all("Condition" in policy[name] for name in ("Logs", "Alarms"))


def test_queues_refuse_what_comes_without_tls(stack: Stack) -> None:
    (policy,) = of_type(stack, "AWS::SQS::QueuePolicy").values()
    assert {queue["Ref"] for queue in policy["Queues"]} == set(of_type(stack, "AWS::SQS::Queue"))
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert {queue["Fn::GetAtt"][0] for queue in statement["Resource"]} == set(of_type(stack, "AWS::SQS::Queue"))


def test_alarms_are_published_by_this_accounts_alarms_only_and_over_tls(full_stack: Stack) -> None:
    (policy,) = of_type(full_stack, "AWS::SNS::TopicPolicy").values()
    allow, deny = policy["PolicyDocument"]["Statement"]
    assert (allow["Effect"], allow["Principal"]) == ("Allow", {"Service": "cloudwatch.amazonaws.com"})
    assert allow["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_a_domain_of_ones_own_speaks_no_old_tls(full_stack: Stack) -> None:
    (domain,) = of_type(full_stack, "AWS::ApiGatewayV2::DomainName").values()
    assert {configuration["SecurityPolicy"] for configuration in domain["DomainNameConfigurations"]} == {"TLS_1_2"}


# -------------------------------------------------------------- permissions
def statements(role: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for policy in role["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def targets(resource: Any) -> set[str]:
    """Names of the resources that a statement is about."""
    names = set()
    for reference in as_list(resource):
        if isinstance(reference, dict) and "Fn::GetAtt" in reference:
            names.add(reference["Fn::GetAtt"][0])
        elif isinstance(reference, dict) and "Ref" in reference:
            names.add(reference["Ref"])
        else:
            names.add(str(reference))
    return names


def granted(stack: Stack, name: str) -> dict[str, set[str]]:
    """What the function may do, by resource."""
    role = function(stack, name)["Role"]["Fn::GetAtt"][0]
    allowed: dict[str, set[str]] = {}
    for statement in statements(stack[role]["Properties"]):
        assert statement["Effect"] == "Allow"
        for target in targets(statement["Resource"]):
            allowed.setdefault(target, set()).update(as_list(statement["Action"]))
    return allowed


def test_receive_may_send_and_read_its_own_secret(stack: Stack) -> None:
    assert granted(stack, "Receive") == {
        "EventsQueue": {"sqs:SendMessage"},
        "DeadLetterQueue": {"sqs:SendMessage"},
        "SourcesSecret": {"secretsmanager:GetSecretValue"},
        "ReceiveLogs": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }


def test_deliver_may_take_defer_park_pace_and_read_its_own_secret(stack: Stack) -> None:
    assert granted(stack, "Deliver") == {
        "EventsQueue": {
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:ChangeMessageVisibility",
            "sqs:GetQueueAttributes",
            "sqs:SendMessage",
        },
        "DeadLetterQueue": {"sqs:SendMessage"},
        "OwnTable": {"dynamodb:GetItem", "dynamodb:UpdateItem"},
        "KlaviyoSecret": {"secretsmanager:GetSecretValue"},
        "DeliverLogs": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }


def test_no_statement_has_a_wildcard(full_stack: Stack) -> None:
    for name, role in of_type(full_stack, "AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in role, f"{name}: managed policies reach other resources of the account"
        for statement in statements(role):
            assert not any("*" in action for action in as_list(statement["Action"])), statement["Sid"]
            # X-Ray's two actions know no resources; nothing else may be granted everywhere.
            assert "*" not in targets(statement["Resource"]) or statement["Sid"] == "Trace"


# --------------------------------------------------------------------- logs
def test_every_function_logs_to_a_group_that_forgets(stack: Stack) -> None:
    groups = of_type(stack, "AWS::Logs::LogGroup")
    for properties in of_type(stack, "AWS::Lambda::Function").values():
        assert properties["LoggingConfig"]["LogGroup"]["Ref"] in groups
    assert all(0 < group["RetentionInDays"] <= 365 for group in groups.values())


def test_the_access_log_grows_no_policy_of_the_account(stack: Stack) -> None:
    # CloudWatch Logs guide, "Enable logging from AWS services": names under this prefix need no entry in it.
    (stage,) = of_type(stack, "AWS::ApiGatewayV2::Stage").values()
    group = stack[stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0]]["Properties"]
    assert group["LogGroupName"]["Fn::Sub"].startswith("/aws/vendedlogs/")


def test_levels_are_kept_by_the_code_not_by_lambda(stack: Stack) -> None:
    # With JSON as Lambda's format its own filter drops metric lines, which name no level, above INFO.
    for properties in of_type(stack, "AWS::Lambda::Function").values():
        assert properties["LoggingConfig"].get("LogFormat", "Text") == "Text"


def test_access_logs_hold_no_url(stack: Stack) -> None:
    (stage,) = of_type(stack, "AWS::ApiGatewayV2::Stage").values()
    written = str(stage["AccessLogSettings"]["Format"])
    assert "$context.requestId" in written
    for telling in ("$context.path", "querystring", "$context.identity", "authorizer", "$context.integrationErrorMess"):
        assert telling not in written


# ---------------------------------------------------------- template and code
def variables_read(reader: str) -> set[str]:
    """Environment variables that one function of settings.py reads."""
    tree = ast.parse((ROOT / "src/handler/settings.py").read_text("utf-8"))
    read = {node.name: _subscripts(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    return read["_shared"] | read[reader]


def _subscripts(tree: ast.AST) -> set[str]:
    return {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "env"
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }


@pytest.mark.parametrize(("name", "reader"), [("Receive", "for_receive"), ("Deliver", "for_deliver")])
def test_the_variables_set_are_the_variables_read(stack: Stack, name: str, reader: str) -> None:
    variables = set(function(stack, name)["Environment"]["Variables"])
    assert {variable for variable in variables if not variable.startswith("POWERTOOLS_")} == variables_read(reader)
    assert {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL"} <= variables


def test_the_handlers_exist_in_the_package(template: Stack, stack: Stack) -> None:
    assert template["Globals"]["Function"]["CodeUri"] == "src/"
    for properties in of_type(stack, "AWS::Lambda::Function").values():
        module, _, name = properties["Handler"].rpartition(".")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert Path(str(spec.origin)).is_relative_to(ROOT / "src")
        tree = ast.parse(Path(str(spec.origin)).read_text("utf-8"))
        assigned = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
        assert name in {ast.unparse(target) for targets in assigned for target in targets}


def test_the_runtime_changes_with_a_deployment_only(stack: Stack) -> None:
    for properties in of_type(stack, "AWS::Lambda::Function").values():
        assert properties["RuntimeManagementConfig"] == {"UpdateRuntimeOn": "FunctionUpdate"}


@pytest.mark.parametrize(
    ("partition", "address"),
    [
        ("aws", "https://console.aws.amazon.com/cloudwatch/home?region=${AWS::Region}#"),
        ("aws-cn", "https://console.amazonaws.cn/cloudwatch/home?region=${AWS::Region}#"),
        ("aws-us-gov", "https://console.amazonaws-us-gov.com/cloudwatch/home?region=${AWS::Region}#"),
        ("aws-eusc", "https://console.amazonaws-eusc.eu/cloudwatch/home?region=${AWS::Region}#"),
        ("aws-of-tomorrow", "In CloudWatch: the dashboard ${Dashboard}"),
    ],
)
def test_the_dashboard_has_an_address_in_each_partition(partition: str, address: str) -> None:
    value = reading.outputs(**{"AWS::Partition": partition})["DashboardUrl"]["Value"]["Fn::Sub"]
    assert value.startswith(address)
    assert value.endswith("${Dashboard}")


def test_every_parameter_has_a_default_a_description_and_a_use(template: Stack) -> None:
    text = (ROOT / "template.yaml").read_text("utf-8")
    for name, parameter in template["Parameters"].items():
        assert "Default" in parameter, f"{name}: a deployment must not have to ask"
        assert parameter["Description"].endswith(".")
        assert f"!Ref {name}" in text or f"${{{name}}}" in text, f"{name} is not used"


def test_the_redrive_names_its_destination(template: Stack) -> None:
    # Parked messages were sent, not moved: without a destination SQS cannot tell where they belong.
    command = template["Outputs"]["RedriveCommand"]["Value"]["Fn::Sub"]
    assert "--source-arn ${DeadLetterQueue.Arn}" in command
    assert "--destination-arn ${EventsQueue.Arn}" in command
    assert "--max-number-of-messages-per-second" in command
