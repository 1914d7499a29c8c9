//! The command line: what can be typed. What it means is in the parent module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::convert::Dtype;
use crate::eval::Searches;

/// Trains a language model to search, by reinforcement learning against a retriever.
///
/// Every key of the configuration is also a variable: training.steps is TRAINER_TRAINING_STEPS.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Warm-start a model on demonstrations of the questions in `data.train`
    Sft(CommonArguments),
    /// Train a model by reinforcement learning through the retriever
    Train(CommonArguments),
    /// Ask a model the questions in `data.test` and score its answers
    Eval(EvalArguments),
    /// Ask a model questions in the terminal and watch it think and search
    Chat(ChatArguments),
    /// Answer chat completions as OpenAI's protocol has them, searching on the way
    Serve(ServeArguments),
    /// Turn a quantised GGUF file into a folder in Hugging Face layout
    Convert(ConvertArguments),
    /// Compute a failed update again and say where its first NaN or infinity arises
    Replay(ReplayArguments),
    /// Build report.html from what a run has measured
    Report(ReportArguments),
    /// Say what a configuration means before anything is loaded: updates, lengths, memory, time
    Lint(LintArguments),
    /// Print the resolved configuration, or the reference of all keys
    Config(ConfigArguments),
}

/// How every command is configured.
#[derive(Clone, Debug, Default, Args)]
pub struct CommonArguments {
    /// Configuration in TOML; without it every key has its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, such as training.learning_rate=1e-6; wins over --config and TRAINER_TRAINING_LEARNING_RATE;
    /// can be repeated, the last one wins
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder that the run writes to: short for --set run_dir=DIR
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct EvalArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Model to ask, a folder or a name such as org/name: short for --set model.path=DIR
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// What answers the searches
    #[arg(long, value_enum, default_value = "retriever")]
    pub searches: Searches,
    /// What to call the result in tables [default: name of the model's folder]
    #[arg(long)]
    pub name: Option<String>,
    /// File for the result [default: RUN_DIR/eval/NAME.json]
    #[arg(long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LintArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Print the same as JSON, in bytes, tokens and seconds
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ChatArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Model to ask, a folder or a name such as org/name: short for --set model.path=DIR
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Ask this and end, instead of reading questions from the terminal
    #[arg(long)]
    pub question: Option<String>,
}

#[derive(Debug, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Model to serve, a folder or a name such as org/name: short for --set model.path=DIR
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Address and port to listen at: short for --set serve.addr=ADDR
    #[arg(long)]
    pub addr: Option<String>,
}

#[derive(Debug, Args)]
pub struct ConvertArguments {
    /// Quantised model file
    pub gguf: PathBuf,
    /// Folder to write
    pub folder: PathBuf,
    /// Number format of the weights written
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: Dtype,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// Folder failed-batch-step-N of a run
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of the run; the report is written into it
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Heading of the report [default: name of the run's folder]
    #[arg(long)]
    pub title: Option<String>,
}

#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Print tables of all keys in Markdown instead
    #[arg(long)]
    pub reference: bool,
    /// With --reference: print all variables as .env.example shows them
    #[arg(long, requires = "reference")]
    pub env: bool,
}
