//! The template reader: what it understands, and how it says what it does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use payday_local::stack::secret_parameter;
use payday_local::template::{Place, Wiring, parse, read};

fn place() -> Place {
    Place {
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
        stack_name: "payday".to_owned(),
        sqs_origin: "http://127.0.0.1:1".to_owned(),
    }
}

fn arns() -> BTreeMap<String, String> {
    let names = ["DATABASE_URL", "MIGRATION_DATABASE_URL", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "CRON_SECRET"];
    names.map(|name| (secret_parameter(name), format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}"))).into()
}

fn product(change: impl FnOnce(&mut BTreeMap<String, String>)) -> Wiring {
    let mut parameters = arns();
    change(&mut parameters);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
    read(&path, &parameters, &place()).expect("the template is read")
}

#[test]
fn the_template_that_deploys_is_understood_whole() {
    let wiring = product(|_| {});
    let names: Vec<&str> = wiring.functions.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["api", "batch-creator", "chunk-processor", "cron-trigger", "migrator", "notifier", "scheduled-jobs", "webhook-receiver"]
    );
    assert_eq!(wiring.queues.len(), 7);
    assert_eq!(
        wiring.queues["ProcessChunkQueue"].redrive.as_ref().map(|redrive| redrive.dead_letter_queue.as_str()),
        Some("ProcessChunkDlq")
    );
    let chunks = wiring.event_sources.iter().find(|source| source.function == "chunk-processor").expect("a mapping");
    assert_eq!((chunks.batch_size, chunks.maximum_concurrency, chunks.report_batch_item_failures), (2, Some(5), true));
    let mut schedules: Vec<&str> = wiring.schedules.iter().map(|schedule| schedule.name.as_str()).collect();
    schedules.sort_unstable();
    assert_eq!(
        schedules,
        [
            "job-forecast",
            "job-heartbeat",
            "job-mature",
            "job-reconcile",
            "job-retry",
            "job-sweep",
            "job-sync",
            "job-verify",
            "payout-monthly",
            "payout-semimonthly",
            "payout-weekly"
        ]
    );
    let routes: Vec<(&str, &str, &str)> =
        wiring.routes.iter().map(|route| (route.method.as_str(), route.path.as_str(), route.function.as_str())).collect();
    assert!(routes.contains(&("POST", "/webhooks/stripe", "webhook-receiver")), "{routes:?}");
    assert!(routes.contains(&("ANY", "$default", "api")), "{routes:?}");
    assert!(!wiring.functions["migrator"].environment.contains_key("DATABASE_URL_ARN"));
    assert_eq!(wiring.functions["chunk-processor"].timeout, Duration::from_secs(900));
}

#[test]
fn parameters_conditions_and_defaults_decide_what_functions_get() {
    let plain = product(|_| {});
    assert!(!plain.functions["api"].environment.contains_key("JWT_SECRET_ARN"));
    assert_eq!(plain.functions["cron-trigger"].environment["PAYOUT_TIMEZONE"], "UTC");
    let changed = product(|parameters| {
        parameters.insert("JwtSecretArn".to_owned(), "arn:aws:secretsmanager:us-east-1:123456789012:secret:jwt".to_owned());
        parameters.insert("PayoutHour".to_owned(), "5".to_owned());
        parameters.insert("PayoutTimezone".to_owned(), "Europe/Berlin".to_owned());
    });
    assert!(changed.functions["api"].environment["JWT_SECRET_ARN"].ends_with("secret:jwt"));
    let schedule = changed.schedules.iter().find(|schedule| schedule.name == "payout-monthly").expect("a schedule");
    assert_eq!((schedule.expression.as_str(), schedule.timezone.as_str()), ("cron(0 5 1 * ? *)", "Europe/Berlin"));
}

/// A small template with one line changed, and what the error says.
#[test]
fn a_wrong_template_is_refused_with_the_path_and_never_a_panic() {
    let template = r#"
Parameters:
  Hours: { Type: Number, Default: 6, MaxValue: 8 }
  Mode: { Type: String, Default: on, AllowedValues: [on, off] }
Conditions:
  IsOn: !Equals [!Ref Mode, on]
Resources:
  Jobs:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 60
  WorkerFunction:
    Type: AWS::Serverless::Function
    Metadata: { BuildProperties: { Binary: worker } }
    Properties:
      Runtime: provided.al2023
      Timeout: 10
      Environment:
        Variables:
          URL: !Ref Jobs
      Events:
        Jobs:
          Type: SQS
          Properties:
            Queue: !GetAtt Jobs.Arn
"#;
    let read = |text: &str| parse(text, &BTreeMap::new(), &place());
    read(template).expect("the template is right");
    for (line, changed, said) in [
        (
            "      Timeout: 10",
            "      Timeout: 1000",
            "Resources.WorkerFunction.Properties.Timeout in the template must be a whole number from 1 to 900",
        ),
        ("      Timeout: 10", "      Timeout: [1]", "Timeout in the template must be a text"),
        (
            "      Timeout: 10",
            "      SnapStart: { ApplyOn: None }",
            "Properties.SnapStart in the template is a property that the local runtime neither",
        ),
        ("      Timeout: 10", "      Timeout: !Ref Nothing", "refers to Nothing"),
        ("      Timeout: 10", "      Timeout: !Cidr [a, b]", "uses !Cidr"),
        ("      Timeout: 10", "      Timeout: !Sub 1${Missing", "has a ${ without its }"),
        ("      Timeout: 10", "      Timeout: !If [IsOff, 1, 2]", "the condition IsOff"),
        ("      Timeout: 10", "      Timeout: !If [IsOn, 1]", "!If takes a list of 3"),
        ("      Timeout: 10", "      Timeout: !FindInMap [A, b, c]", "no entry A → b → c"),
        ("      Timeout: 10", "      Timeout: 100", "shorter than the timeout of worker"),
        ("      VisibilityTimeout: 60", "      FifoQueue: true", "Resources.Jobs.Properties.FifoQueue"),
        ("      VisibilityTimeout: 60", "      QueueName: !Sub ${Jobs}", "a name that needs itself"),
        (
            "      VisibilityTimeout: 60",
            "      RedrivePolicy: { deadLetterTargetArn: arn:aws:sqs:x:1:Gone, maxReceiveCount: 3 }",
            "which is no queue here",
        ),
        ("    Type: AWS::SQS::Queue", "    Type: AWS::S3::Bucket", "has the type AWS::S3::Bucket"),
        ("    Metadata: { BuildProperties: { Binary: worker } }", "    Metadata: {}", "has no Binary"),
        ("            Queue: !GetAtt Jobs.Arn", "            Queue: !GetAtt Jobs.Size", "does not know Size of Jobs"),
        ("            Queue: !GetAtt Jobs.Arn", "            FilterCriteria: {}", "has no Queue"),
        (
            "            Queue: !GetAtt Jobs.Arn",
            "            Queue: !GetAtt Jobs.Arn\n            BatchSize: 20",
            "over 10 needs MaximumBatchingWindowInSeconds",
        ),
        ("          Type: SQS", "          Type: S3", "Type in the template is \"S3\""),
        (
            "  Hours: { Type: Number, Default: 6, MaxValue: 8 }",
            "  Hours: { Type: Number, Default: 9, MaxValue: 8 }",
            "does not allow 9",
        ),
        (
            "  Mode: { Type: String, Default: on, AllowedValues: [on, off] }",
            "  Mode: { Type: String, Default: up, AllowedValues: [on, off] }",
            "does not allow \"up\"",
        ),
        ("  IsOn: !Equals [!Ref Mode, on]", "  IsOn: !Condition IsOn\n  Other: !Not [!Condition IsOn]", ""),
        ("Conditions:", "Rules: {}\nConditions:", "Rules in the template is no section"),
        ("Resources:", "Resources: 7\nOutputs:", "Resources in the template must be a mapping"),
        ("Resources:", "Outputs:", "there is nothing to run"),
        ("Parameters:", "Parameters: [", "not YAML"),
    ] {
        assert!(template.contains(line), "{line}");
        let text = template.replacen(line, changed, 1);
        match read(&text) {
            Ok(_) => assert!(said.is_empty(), "{changed} was accepted"),
            Err(error) => assert!(error.to_string().contains(said), "{changed}: {error}"),
        }
    }
    let circle = template
        .replace("      Timeout: 10", "      Timeout: !If [A, 1, 2]")
        .replace("  IsOn:", "  A: !Not [!Condition B]\n  B: !Not [!Condition A]\n  IsOn:");
    assert!(read(&circle).expect_err("a circle").to_string().contains("needs itself"));
    let unknown = BTreeMap::from([("Nothing".to_owned(), "1".to_owned())]);
    assert!(parse(template, &unknown, &place()).expect_err("unknown").to_string().contains("has no Nothing"));
}
