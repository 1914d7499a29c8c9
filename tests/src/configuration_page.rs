//! docs/configuration.md says what the programs really take. `make configuration` writes it anew.

use std::path::Path;

use trainer::config::Config;

const HEAD: &str = "# Configuration

Every setting of both programs, from the tables in the code (`make configuration` writes this page).

## retriever-server

Each is a variable of the environment and a flag of `retriever-server serve`; a flag wins.

";
const TRAINER_HEAD: &str = "
## trainer

Keys of the TOML file that `--config` names; `--set section.key=value` changes one for once.

";

#[test]
fn the_configuration_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = format!(
        "{HEAD}{}{TRAINER_HEAD}{}",
        retriever_server::config::variables::markdown(),
        Config::reference_markdown()
    );
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/configuration.md is stale: run `make configuration`");
}
