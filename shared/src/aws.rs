//! How AWS is reached: one TLS stack, short timeouts, and nothing but the environment that Lambda sets.
//!
//! The SDK's own defaults look for profile files and a metadata server, which costs a cold start seconds where neither is.
//! `AWS_ENDPOINT_URL_SQS` and `AWS_ENDPOINT_URL_SCHEDULER` are obeyed, which is how one machine stands in for AWS.

use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_http_client::{Builder, tls};

/// The settings that every AWS client is made from. Opens no connection.
pub async fn settings() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(Duration::from_secs(5))
        .operation_timeout(Duration::from_secs(15))
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .profile_files(EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, "").build())
        .region(EnvironmentVariableRegionProvider::new())
        .credentials_provider(EnvironmentVariableCredentialsProvider::new())
        .http_client(Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc)).build_https())
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts)
        .load()
        .await
}
