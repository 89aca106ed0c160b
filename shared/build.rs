//! Builds the library anew when a migration is added: it carries them all, and cargo would not see a new file.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
