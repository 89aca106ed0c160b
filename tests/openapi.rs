//! The OpenAPI document in the repository is the one that the code makes: a change of the API is seen in review.

use std::path::Path;

#[test]
fn the_openapi_document_in_the_repository_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.json");
    let made = payday::router::openapi_json();
    // The test writes the file when it is asked to, so that there is one way to make it.
    if std::env::var_os("PAYDAY_UPDATE").is_some() {
        std::fs::write(&path, &made).expect("the repository can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "openapi.json is not what the code says; look at the change and run: PAYDAY_UPDATE=1 cargo test -p payday-tests --test openapi"
    );
}
