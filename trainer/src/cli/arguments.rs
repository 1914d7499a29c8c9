//! The arguments of the command line. The parent module acts on them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::evaluating::{AuditArguments, CompareArguments, SeveralArguments};
use crate::convert::Dtype;
use crate::eval::Searches;

/// Trains a language model to search, by reinforcement learning against a retriever.
///
/// Every configuration key is also an environment variable: training.steps is TRAINER_TRAINING_STEPS.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Warm-start a model on demonstrations made from the questions in `data.train`
    Sft(CommonArguments),
    /// Train a model to search, by reinforcement learning with the retriever
    Train(CommonArguments),
    /// Ask a model the questions in `data.test` and score its answers
    Eval(EvalArguments),
    /// Search the corpus for the accepted answers of question sets, and state the ceiling that follows
    Audit(AuditArguments),
    /// Compare two evaluations of the same questions: paired differences and the questions that flipped
    Compare(CompareArguments),
    /// Ask a model questions in the terminal and watch it think and search
    Chat(ChatArguments),
    /// Serve chat completions in OpenAI's protocol; the model searches before it answers
    Serve(ServeArguments),
    /// Convert a quantised GGUF file to a folder in Hugging Face layout
    Convert(ConvertArguments),
    /// Prepare question files
    #[command(subcommand)]
    Data(DataCommand),
    /// Repeat a failed update and report where its first NaN or infinity arises
    Replay(ReplayArguments),
    /// Write report.html from the measurements of a run
    Report(ReportArguments),
    /// Report what a configuration means, without loading the model, and what the retriever answers to one question
    Lint(LintArguments),
    /// Print the resolved configuration, or a reference of all keys
    Config(ConfigArguments),
}

/// The configuration arguments of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct CommonArguments {
    /// Configuration file in TOML; without it, every key has its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, such as training.learning_rate=1e-6; overrides --config and environment variables; can be
    /// repeated, and the last one wins
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder of the run's files: short for --set run_dir=DIR
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
    #[command(flatten)]
    pub several: SeveralArguments,
    /// Audit of the corpus, whose ceiling stands beside each score: short for --set eval.audit=FILE
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Source of the answers to searches
    #[arg(long, value_enum, default_value = "retriever")]
    pub searches: Searches,
    /// Name of the result in tables [default: name of the model's folder]
    #[arg(long)]
    pub name: Option<String>,
    /// File to write the result to [default: RUN_DIR/eval/NAME.json]
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["questions", "turns", "baselines"])]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LintArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Print the report as JSON, in bytes, tokens and seconds
    #[arg(long)]
    pub json: bool,
    /// Source of the answers to searches; only the retriever is asked a question
    #[arg(long, value_enum, default_value = "retriever")]
    pub searches: Searches,
}

#[derive(Debug, Args)]
pub struct ChatArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Model to ask, a folder or a name such as org/name: short for --set model.path=DIR
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Ask this question and exit, instead of reading questions from the terminal
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
    /// Address and port to listen on: short for --set serve.addr=ADDR
    #[arg(long)]
    pub addr: Option<String>,
}

#[derive(Debug, Args)]
pub struct ConvertArguments {
    /// Quantised model file
    pub gguf: PathBuf,
    /// Folder to write to
    pub folder: PathBuf,
    /// Number format of the written weights
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: Dtype,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Convert a question file of another project into JSON Lines of id, question and golden_answers
    ///
    /// Reads parquet, JSON Lines, JSON lists and tables, plain or compressed, in the forms of Search-R1, veRL, SkyRL,
    /// FlashRAG and the published question-answering sets.
    Convert(DataConvertArguments),
    /// Describe a question file: sources, lengths, answers, ids, prompts, and what is doubtful about it
    Describe(DataDescribeArguments),
    /// Print some questions of a file as JSON Lines
    Sample(DataSampleArguments),
    /// Download files of data sets by their names on the hub, hf://org/name@revision/path, into the cache
    Fetch(DataFetchArguments),
}

#[derive(Debug, Args)]
pub struct DataConvertArguments {
    /// File to read, or a folder with its parts
    pub input: PathBuf,
    /// File to write
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct DataDescribeArguments {
    /// File to read, or a folder with its parts
    pub input: PathBuf,
    /// File with held-out questions: reports those that are in the input too
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Print the description as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataSampleArguments {
    /// File to read, or a folder with its parts
    pub input: PathBuf,
    /// Number of questions
    #[arg(long, default_value_t = 5)]
    pub count: usize,
    /// Seed of the choice
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print the prompts that the rows carry too
    #[arg(long)]
    pub prompt: bool,
}

#[derive(Debug, Args)]
pub struct DataFetchArguments {
    /// Files or folders, such as hf://org/name/train.jsonl
    #[arg(required_unless_present = "model", value_name = "hf://ORG/NAME/PATH")]
    pub names: Vec<String>,
    /// Download this model too, org/name or org/name@revision; a folder is left as it is
    #[arg(long, value_name = "NAME")]
    pub model: Option<PathBuf>,
    /// Folder that receives a link to each of them
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Print the size of each file and the bytes that the cache lacks of it, and download nothing
    #[arg(long, conflicts_with = "to")]
    pub sizes: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// Folder of the failed update, failed-batch-step-N in the run's folder
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of the run, which also receives the report
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
    /// Print a reference of all keys in Markdown instead
    #[arg(long)]
    pub reference: bool,
    /// With --reference: print all environment variables as in .env.example
    #[arg(long, requires = "reference")]
    pub env: bool,
}
