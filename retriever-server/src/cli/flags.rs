//! Flags that stand for variables of the configuration. They come from the table of variables, so a
//! new variable is a flag without further work.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::variables::{self as var, Variable};

/// The variables that are flags of a command.
pub(super) trait Selection {
    /// Returns the variables, in the order of the help.
    fn variables() -> Vec<Variable>;

    /// Returns the flag of one of them.
    fn flag(variable: &Variable) -> Arg {
        argument(variable)
    }
}

/// Every variable, as `serve` and `check` accept them.
#[derive(Debug)]
pub(super) enum Every {}

impl Selection for Every {
    fn variables() -> Vec<Variable> {
        var::VARIABLES.to_vec()
    }
}

/// The values that were typed for a selection of variables.
pub(super) struct Flags<S> {
    /// Values by the name of their variable.
    pub(super) values: BTreeMap<String, String>,
    selection: PhantomData<S>,
}

impl<S: Selection> Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        command.args(S::variables().iter().map(S::flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Selection> FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { values: values(matches, &S::variables()), selection: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.values.extend(values(matches, &S::variables()));
        Ok(())
    }
}

impl<S> fmt::Debug for Flags<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be keys.
        self.values.keys().fmt(formatter)
    }
}

/// Returns the flag of a variable. It has no default of its own: values that were not typed come from the
/// environment or the table.
pub(super) fn argument(variable: &Variable) -> Arg {
    let help = help(variable, variable.meaning, variable.accepts);
    let argument = Arg::new(variable.name)
        .long(variable.flag)
        .value_name(if variable.unit.is_empty() { "VALUE" } else { variable.unit })
        .allow_hyphen_values(true)
        .help(help);
    if variable.name == var::CORPUS.name {
        // Several files: after one flag, after several, or with commas.
        argument.num_args(1..).action(ArgAction::Append).allow_hyphen_values(false)
    } else {
        argument
    }
}

/// Returns the help of a flag: its meaning, what it accepts, its default and its variable.
pub(super) fn help(variable: &Variable, meaning: &str, accepts: &str) -> String {
    let default = variable.default.map_or_else(String::new, |value| format!(" [default: {value}]"));
    format!("{meaning} [accepts: {accepts}]{default} [env: {}]", variable.name)
}

/// Returns the typed values of `variables`. Several values of one flag are joined by commas.
fn values(matches: &ArgMatches, variables: &[Variable]) -> BTreeMap<String, String> {
    let value = |variable: &Variable| {
        let typed = matches.get_many::<String>(variable.name)?;
        let typed: Vec<&str> = typed.map(String::as_str).collect();
        Some((variable.name.to_owned(), typed.join(",")))
    };
    variables.iter().filter_map(value).collect()
}

/// Returns the parser of an integer within `range`, whose message names what is accepted.
pub(super) fn count<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("expected an integer from {} to {}", range.start(), range.end()))
    }
}
