//! Commands and flags. The flags of `serve` come from the table of variables.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use crate::cli::bench::{self, BenchArguments};
use crate::cli::evaluate::{self, EvaluateArguments};
use crate::cli::plan::{self, PlanArguments};
use crate::config::variables::{self as var, Variable};

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Build an index.
    Index {
        /// Values by the name of their variable.
        flags: BTreeMap<String, String>,
        /// Whether an index of another corpus is replaced.
        force: bool,
        /// Whether passages are kept compressed.
        compact: bool,
    },
    /// Answer queries.
    Serve {
        /// Values by the name of their variable.
        flags: BTreeMap<String, String>,
    },
    /// Check what `serve` would be told, and do no more.
    Check {
        /// Values by the name of their variable.
        flags: BTreeMap<String, String>,
    },
    /// Ask a running server whether it is ready.
    Health {
        /// Base URL of the server.
        url: Option<String>,
    },
    /// Measure a running server.
    Bench(BenchArguments),
    /// Say what an index needs.
    Plan(PlanArguments),
    /// Score back ends.
    Evaluate(EvaluateArguments),
    /// Print the table of variables.
    Variables {
        /// As `.env.example` shows them, instead of as a Markdown table.
        env: bool,
    },
}

/// Variables that `index` takes too.
const INDEX_VARIABLES: [Variable; 11] = [
    var::BACKEND,
    var::CORPUS,
    var::INDEX,
    var::MODEL,
    var::DEVICE,
    var::ONNXRUNTIME,
    var::VECTOR_FORMAT,
    var::ANN,
    var::THREADS,
    var::LOG,
    var::LOG_FORMAT,
];

/// Reads the command line.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let matches = program().try_get_matches_from(arguments)?;
    Ok(match matches.subcommand() {
        Some(("index", matches)) => Command::Index {
            flags: values(matches, &INDEX_VARIABLES),
            force: matches.get_flag("force"),
            compact: matches.get_flag("compact"),
        },
        Some(("serve", matches)) => Command::Serve { flags: values(matches, var::VARIABLES) },
        Some(("check", matches)) => Command::Check { flags: values(matches, var::VARIABLES) },
        Some(("health", matches)) => {
            Command::Health { url: matches.get_one::<String>("url").cloned() }
        }
        Some(("bench", matches)) => Command::Bench(BenchArguments::read(matches)),
        Some(("eval", matches)) => Command::Evaluate(EvaluateArguments::read(matches)),
        Some(("plan", matches)) => Command::Plan(PlanArguments::read(matches)),
        Some((_, matches)) => Command::Variables { env: matches.get_flag("env") },
        None => Command::Variables { env: false },
    })
}

fn program() -> Clap {
    Clap::new("retriever-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Answers POST /retrieve with passages of a corpus")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Clap::new("index")
                .about(
                    "Build the index of a corpus of JSON lines {\"id\", \"contents\"}: BM25, and \
                     what each --backend needs besides: vectors for dense, a graph over them for ann",
                )
                .args(INDEX_VARIABLES.iter().map(argument))
                .mut_arg(var::BACKEND.name, |backend| {
                    backend
                        .action(ArgAction::Append)
                        .help("Back ends to index for, one or several with commas between them")
                })
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("Replace an index of another corpus"),
                )
                .arg(
                    Arg::new("compact")
                        .long("compact")
                        .action(ArgAction::SetTrue)
                        .help(
                            "Keep passages compressed, in about half the room; compresses those of \
                             an index that is there",
                        ),
                ),
        )
        .subcommand(
            Clap::new("serve")
                .about("Serve an index over HTTP")
                .args(var::VARIABLES.iter().map(argument)),
        )
        .subcommand(
            Clap::new("check")
                .about("Check the configuration as serve does, without serving; 64 if it is bad")
                .args(var::VARIABLES.iter().map(argument)),
        )
        .subcommand(
            Clap::new("health").about("Exit with 0 if a server is ready, with 1 if not").arg(
                Arg::new("url")
                    .long("url")
                    .value_name("URL")
                    .help("Base URL of the server [default: the port of RETRIEVER_ADDR here]"),
            ),
        )
        .subcommand(plan::command())
        .subcommand(evaluate::command())
        .subcommand(bench::command())
        .subcommand(
            Clap::new("variables").about("Print all variables as a Markdown table").arg(
                Arg::new("env")
                    .long("env")
                    .action(ArgAction::SetTrue)
                    .help("Print them as .env.example shows them instead"),
            ),
        )
}

pub(super) fn argument(variable: &Variable) -> Arg {
    let default = variable.default.map_or_else(String::new, |value| format!(" [default: {value}]"));
    let help = format!("{}{default} [env: {}]", variable.meaning, variable.name);
    let argument = Arg::new(variable.name)
        .long(variable.flag)
        .value_name(if variable.unit.is_empty() { "VALUE" } else { variable.unit })
        .allow_hyphen_values(true)
        .help(help);
    if variable.name == var::CORPUS.name {
        // Several files, whether after one flag, after several, or with commas.
        argument.num_args(1..).action(ArgAction::Append).allow_hyphen_values(false)
    } else {
        argument
    }
}

pub(super) fn values(matches: &ArgMatches, variables: &[Variable]) -> BTreeMap<String, String> {
    let value = |variable: &Variable| {
        let given: Vec<&str> =
            matches.get_many::<String>(variable.name)?.map(String::as_str).collect();
        Some((variable.name.to_owned(), given.join(",")))
    };
    variables.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    fn map(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flags_become_variables() {
        let command = parsed("retriever-server serve --top-k 5 --bm25-k1 1.2").unwrap();
        let flags = map(&[("RETRIEVER_TOP_K", "5"), ("RETRIEVER_BM25_K1", "1.2")]);
        assert_eq!(command, Command::Serve { flags: flags.clone() });
        let command = parsed("retriever-server check --top-k 5 --bm25-k1 1.2").unwrap();
        assert_eq!(command, Command::Check { flags });
    }

    #[test]
    fn a_corpus_may_be_several_files() {
        let flags = map(&[("RETRIEVER_CORPUS", "a,b"), ("RETRIEVER_INDEX", "i")]);
        for line in [
            "retriever-server index --corpus a b --index i --force",
            "retriever-server index --corpus a --corpus b --index i --force",
            "retriever-server index --corpus a,b --index i --force",
        ] {
            let flags = flags.clone();
            assert_eq!(
                parsed(line).unwrap(),
                Command::Index { flags, force: true, compact: false },
                "{line}"
            );
        }
    }

    #[test]
    fn an_index_may_be_made_for_several_back_ends() {
        let flags = map(&[("RETRIEVER_BACKEND", "bm25,dense"), ("RETRIEVER_INDEX", "i")]);
        for line in [
            "retriever-server index --backend bm25,dense --index i",
            "retriever-server index --backend bm25 --index i --backend dense",
        ] {
            let flags = flags.clone();
            let expected = Command::Index { flags, force: false, compact: false };
            assert_eq!(parsed(line).unwrap(), expected, "{line}");
        }
        assert!(parsed("retriever-server serve --backend bm25 --backend dense").is_err());
    }

    #[test]
    fn a_negative_value_reaches_the_check_of_the_configuration() {
        let command = parsed("retriever-server serve --top-k -1").unwrap();
        assert_eq!(command, Command::Serve { flags: map(&[("RETRIEVER_TOP_K", "-1")]) });
    }

    #[test]
    fn variables_are_a_table_unless_asked_otherwise() {
        let line = "retriever-server variables";
        assert_eq!(parsed(line).unwrap(), Command::Variables { env: false });
        assert_eq!(parsed(&format!("{line} --env")).unwrap(), Command::Variables { env: true });
    }

    #[test]
    fn the_definition_is_sound_and_unknown_flags_are_refused() {
        program().debug_assert();
        assert!(parsed("retriever-server serve --topk 3").is_err());
    }
}
