//! Builds the client of a store that is reached over the network.
//!
//! Enters: the store's configuration; the environment and the profile file that the services' own tools read
//! Leaves: an [`ObjectStore`]
//! Never:  connects
//! Time:   limits of a live origin: an attempt ends while the segment is still of use
//! Spec:   none

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ClientOptions, Error, ObjectStore, Result, RetryConfig};

use super::location::Service;
use super::profile::{self, Profile};
use super::{Addressing, Config};

/// How long a connection may take to open, at most: then the service is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long an idle connection is kept: longer than a segment, so that each finds one open.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// The client of `bucket` at `service`.
pub(crate) fn build(
    config: &Config,
    service: Service,
    bucket: &str,
) -> Result<Arc<dyn ObjectStore>> {
    Ok(match service {
        Service::S3 => Arc::new(s3(config, bucket)?.build()?),
        Service::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry(config))
                .with_client_options(client(config, &config.endpoint));
            if let Some(endpoint) = endpoint(config) {
                builder = builder.with_base_url(endpoint);
            }
            Arc::new(builder.build()?)
        }
        Service::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_retry(retry(config))
                .with_client_options(client(config, &config.endpoint));
            if let Some(endpoint) = endpoint(config) {
                builder = builder.with_endpoint(endpoint.to_owned());
            }
            Arc::new(builder.build()?)
        }
    })
}

/// The address of the service, where one is configured.
fn endpoint(config: &Config) -> Option<&str> {
    Some(&*config.endpoint).filter(|endpoint| !endpoint.is_empty())
}

fn s3(config: &Config, bucket: &str) -> Result<AmazonS3Builder> {
    let is_named = !config.profile.is_empty();
    let builder = match is_named {
        // What the environment says is for the other store.
        true => AmazonS3Builder::new(),
        false => AmazonS3Builder::from_env(),
    };
    let mut builder = builder
        .with_bucket_name(bucket)
        .with_retry(retry(config))
        // Not every compatible service knows how to delete several at once.
        .with_disable_bulk_delete(true);
    let named = Some(config.profile.clone()).filter(|_| is_named);
    let profile = profile(named);
    if is_named && (profile.access_key_id.is_none() || profile.secret_access_key.is_none()) {
        return Err(no_credentials(config));
    }
    if (is_named || std::env::var_os("AWS_ACCESS_KEY_ID").is_none())
        && let (Some(id), Some(secret)) = (profile.access_key_id, profile.secret_access_key)
    {
        builder = builder
            .with_access_key_id(id)
            .with_secret_access_key(secret);
        if let Some(token) = profile.session_token {
            builder = builder.with_token(token);
        }
    }
    let from_env = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let from_env = from_env.iter().find_map(|name| std::env::var(name).ok());
    let from_env = from_env.filter(|_| !is_named);
    let configured = Some(config.region.clone()).filter(|region| !region.is_empty());
    if let Some(region) = configured.or(from_env).or(profile.region) {
        builder = builder.with_region(region);
    }
    Ok(addressed(builder, config, bucket))
}

/// Has `builder` ask the service that the configuration names, or else the environment, or else Amazon's own.
fn addressed(builder: AmazonS3Builder, config: &Config, bucket: &str) -> AmazonS3Builder {
    let keys = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let from_env = keys.iter().find_map(|key| builder.get_config_value(key));
    let endpoint = endpoint(config).map(str::to_owned).or(from_env);
    let is_in_host = match config.addressing {
        // Services of one's own rarely have a host name for each bucket.
        Addressing::Auto => endpoint.is_none(),
        Addressing::Path => false,
        Addressing::Host => true,
    };
    let builder = builder.with_virtual_hosted_style_request(is_in_host);
    let Some(endpoint) = endpoint else {
        return builder.with_client_options(client(config, ""));
    };
    // The library takes the address of a service for that of the bucket then.
    let address = match endpoint.split_once("://").filter(|_| is_in_host) {
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => endpoint,
    };
    // Of the two this is the one that is heard.
    builder
        .with_client_options(client(config, &address))
        .with_config(AmazonS3ConfigKey::S3Endpoint, address)
}

fn no_credentials(config: &Config) -> Error {
    let (table, name) = (config.table, &config.profile);
    let text = format!(
        "{table}.profile says {name:?}, of which ~/.aws/credentials has no aws_access_key_id and \
         aws_secret_access_key"
    );
    Error::Unauthenticated {
        path: name.clone(),
        source: text.into(),
    }
}

/// What the profile file says of `name`, or of what Amazon's tools would read.
fn profile(name: Option<String>) -> Profile {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let file = |variable: &str, name: &str| {
        let named = std::env::var_os(variable).map(PathBuf::from);
        named.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
    };
    let read = |path: Option<PathBuf>| {
        path.and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default()
    };
    let name = name.or_else(|| std::env::var("AWS_PROFILE").ok());
    let name = name.unwrap_or_else(|| "default".to_owned());
    let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"));
    let settings = read(file("AWS_CONFIG_FILE", "config"));
    profile::read(&name, &credentials, &settings)
}

/// One more attempt at once, for a pooled connection that had been closed meanwhile. What fails longer is the
/// queue's: it knows what is still of use.
fn retry(config: &Config) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(200),
            base: 2.0,
        },
        max_retries: 1,
        retry_timeout: config.timeout,
    }
}

fn client(config: &Config, endpoint: &str) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(config.timeout)
        .with_connect_timeout(CONNECT_LIMIT.min(config.timeout))
        .with_pool_idle_timeout(IDLE_LIMIT)
        .with_allow_http(endpoint.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use object_store::signer::Signer as _;

    use super::*;

    /// Where an object of the bucket "shows" is asked for.
    async fn asked(config: &Config, from_env: Option<(AmazonS3ConfigKey, &str)>) -> String {
        let mut builder = AmazonS3Builder::new().with_bucket_name("shows");
        if let Some((key, endpoint)) = from_env {
            builder = builder.with_config(key, endpoint);
        }
        let builder = addressed(builder, config, "shows").with_region("eu-west-1");
        let builder = builder
            .with_access_key_id("AK")
            .with_secret_access_key("SK");
        let store = builder.build().expect("built");
        let (method, path) = ("GET".parse().expect("a method"), Path::from("x.m4s"));
        let limit = Duration::from_secs(60);
        let signed = store.signed_url(method, &path, limit).await;
        signed.expect("signed").to_string()
    }

    #[tokio::test]
    async fn a_bucket_is_addressed_by_path_or_by_host_as_it_is_said() {
        use Addressing::{Auto, Host, Path};
        let env = Some("https://env.example");
        let amazon = "s3.eu-west-1.amazonaws.com";
        for (addressing, endpoint, from_env, expected) in [
            (Auto, "http://own:80", None, "http://own:80/shows/".into()),
            (Path, "http://own:80", None, "http://own:80/shows/".into()),
            (
                Host,
                "http://own:7480",
                None,
                "http://shows.own:7480/".into(),
            ),
            (Auto, "http://own:80", env, "http://own:80/shows/".into()),
            (Auto, "", None, format!("https://shows.{amazon}/")),
            (Host, "", None, format!("https://shows.{amazon}/")),
            (Path, "", None, format!("https://{amazon}/shows/")),
            (Auto, "", env, "https://env.example/shows/".into()),
            (Host, "", env, "https://shows.env.example/".into()),
        ] {
            let config = Config {
                addressing,
                endpoint: endpoint.to_owned(),
                ..Config::default()
            };
            for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
                let url = asked(&config, from_env.map(|endpoint| (key, endpoint))).await;
                let expected = expected.replace(":80/", "/") + "x.m4s?";
                let url = url.replace(":80/", "/");
                assert!(
                    url.starts_with(&expected),
                    "{addressing:?} {endpoint} {from_env:?}: {url}"
                );
            }
        }
    }
}
