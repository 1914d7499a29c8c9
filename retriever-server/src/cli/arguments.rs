//! The command line: what can be typed. What it means is in the parent module.

use clap::{Arg, ArgAction, Args, Parser, Subcommand};

use super::bench::BenchArguments;
use super::evaluate::EvaluateArguments;
use super::flags::{Every, Flags, Selection, argument, help};
use super::plan::PlanArguments;
use crate::config::variables::{self as var, Variable};
use crate::engine::EngineKind;

/// Answers POST /retrieve with passages of a corpus
#[derive(Debug, Parser)]
#[command(name = "retriever-server", version, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build the index of a corpus (JSON Lines, a JSON list, a table or parquet, compressed or not):
    /// BM25, and what each --backend needs besides: vectors for dense, a graph over them for ann
    Index(IndexArguments),
    /// Serve an index over HTTP
    Serve(Flags<Every>),
    /// Open what serve opens, without building or serving; ends with serve's message and exit code
    Check(Flags<Every>),
    /// Exit with 0 if a server is ready, with 1 if it is not
    Health(HealthArguments),
    /// Print the disk and memory that an index needs, next to what the machine has; exits with 1 if
    /// the machine has too little
    Plan(PlanArguments),
    /// Score back ends side by side, with queries whose answers are known
    Eval(EvaluateArguments),
    /// Measure a running server: queries per second, latencies, failures by kind
    Bench(BenchArguments),
    /// Print all variables as a Markdown table
    Variables(VariablesArguments),
}

#[derive(Debug, Args)]
pub(super) struct IndexArguments {
    #[command(flatten)]
    pub(super) flags: Flags<Indexing>,
    /// Replace an index of another corpus; with --to, also a collection of other passages or vectors
    #[arg(long)]
    pub(super) force: bool,
    /// Then load the passages, with their vectors where it searches vectors, into an engine at
    /// --engine-url; goes on where an interrupted load was
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    pub(super) to: Option<EngineKind>,
    /// Compress the passages to about half their size, also those of an existing index
    #[arg(long)]
    pub(super) compact: bool,
}

/// Parses the name of an engine.
fn engine(name: &str) -> Result<EngineKind, String> {
    let names = || EngineKind::ALL.map(EngineKind::name).join(", ");
    EngineKind::parse(name).ok_or_else(|| format!("expected one of {}", names()))
}

/// The variables that `index` shares with `serve`.
#[derive(Debug)]
pub(super) enum Indexing {}

impl Selection for Indexing {
    fn variables() -> Vec<Variable> {
        vec![
            var::BACKEND,
            var::CORPUS,
            var::INDEX,
            var::MODEL,
            var::ENGINE_URL,
            var::ENGINE_COLLECTION,
            var::ENGINE_KEY,
            var::ENGINE_KEY_FILE,
            var::HNSW_EF,
            var::DEVICE,
            var::ONNXRUNTIME,
            var::VECTOR_FORMAT,
            var::ANN,
            var::THREADS,
            var::LOG,
            var::LOG_FORMAT,
        ]
    }

    fn flag(variable: &Variable) -> Arg {
        let told = |meaning, accepts| argument(variable).help(help(variable, meaning, accepts));
        if variable.name == var::BACKEND.name {
            let meaning = "Back ends to index for.";
            let accepts = "one or several of bm25, dense, ann, hybrid and the names of engines, with commas between them";
            told(meaning, accepts).action(ArgAction::Append)
        } else if variable.name == var::CORPUS.name {
            let meaning = "Corpus to index. An index that exists needs none: it is kept if it was \
                           made from the given one, or if none is given.";
            told(meaning, variable.accepts)
        } else if variable.name == var::INDEX.name {
            told("Folder of the index to make or complete.", variable.accepts)
        } else {
            argument(variable)
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    /// Base URL of the server [default: the port of RETRIEVER_ADDR on this machine]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct VariablesArguments {
    /// Print them in the form of .env.example instead
    #[arg(long)]
    pub(super) env: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    fn map(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the flags of a line that must be accepted by `index`, without --compact.
    #[track_caller]
    fn indexed(line: &str, forced: bool) -> BTreeMap<String, String> {
        let Ok(Command::Index(arguments)) = parsed(line) else { panic!("{line} does not index") };
        assert_eq!((arguments.force, arguments.compact), (forced, false), "{line}");
        arguments.flags.values
    }

    #[test]
    fn flags_become_variables() {
        let expected = map(&[("RETRIEVER_TOP_K", "5"), ("RETRIEVER_BM25_K1", "1.2")]);
        let Ok(Command::Serve(flags)) = parsed("retriever-server serve --top-k 5 --bm25-k1 1.2")
        else {
            panic!("serve is a command");
        };
        assert_eq!(flags.values, expected);
        let Ok(Command::Check(flags)) = parsed("retriever-server check --top-k 5 --bm25-k1 1.2")
        else {
            panic!("check is a command");
        };
        assert_eq!(flags.values, expected);
    }

    #[test]
    fn a_corpus_may_be_several_files() {
        let flags = map(&[("RETRIEVER_CORPUS", "a,b"), ("RETRIEVER_INDEX", "i")]);
        for line in [
            "retriever-server index --corpus a b --index i --force",
            "retriever-server index --corpus a --corpus b --index i --force",
            "retriever-server index --corpus a,b --index i --force",
        ] {
            assert_eq!(indexed(line, true), flags, "{line}");
        }
    }

    #[test]
    fn an_index_may_be_made_for_several_back_ends() {
        let flags = map(&[("RETRIEVER_BACKEND", "bm25,dense"), ("RETRIEVER_INDEX", "i")]);
        for line in [
            "retriever-server index --backend bm25,dense --index i",
            "retriever-server index --backend bm25 --index i --backend dense",
        ] {
            assert_eq!(indexed(line, false), flags, "{line}");
        }
        assert!(parsed("retriever-server serve --backend bm25 --backend dense").is_err());
    }

    #[test]
    fn a_negative_value_reaches_the_check_of_the_configuration() {
        let Ok(Command::Serve(flags)) = parsed("retriever-server serve --top-k -1") else {
            panic!("the value is checked later");
        };
        assert_eq!(flags.values, map(&[("RETRIEVER_TOP_K", "-1")]));
    }

    #[test]
    fn variables_are_a_table_unless_asked_otherwise() {
        for (line, expected) in
            [("retriever-server variables", false), ("retriever-server variables --env", true)]
        {
            let Ok(Command::Variables(arguments)) = parsed(line) else { panic!("{line}") };
            assert_eq!(arguments.env, expected, "{line}");
        }
    }

    #[test]
    fn the_definition_is_sound_and_unknown_flags_are_refused() {
        Arguments::command().debug_assert();
        assert!(parsed("retriever-server serve --topk 3").is_err());
    }
}
