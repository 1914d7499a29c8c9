//! Regular expressions in Python's syntax, by which PEFT selects modules.

use onig::{MatchParam, Regex, RegexOptions, SearchOptions, Syntax};

/// A compiled regular expression.
#[derive(Debug)]
pub(super) struct Expression(Regex);

impl Expression {
    /// Compiles an expression that has to match a whole text, as Python's `re.fullmatch` does.
    ///
    /// # Errors
    /// Returns the reason why `text` is not an expression.
    pub(super) fn whole(text: &str) -> Result<Self, String> {
        let options = RegexOptions::REGEX_OPTION_NONE;
        // In Python's syntax, `\Z` is the end of the whole text.
        Regex::with_options(&format!(r"(?:{text})\Z"), options, Syntax::python())
            .map(Self)
            .map_err(|error| error.description().to_owned())
    }

    /// Returns `true` if the expression matches `text`. A match that takes too many steps counts as none.
    pub(super) fn matches(&self, text: &str) -> bool {
        let none = SearchOptions::SEARCH_OPTION_NONE;
        matches!(self.0.match_with_param(text, 0, none, None, MatchParam::default()), Ok(Some(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::Expression;

    const QUERY: &str = "model.layers.11.self_attn.q_proj";

    /// Expressions of published adapters and of other constructs, with what `re.fullmatch` of Python 3.11 says.
    #[test]
    fn expressions_match_as_in_python() {
        for (expression, text, expected) in [
            (r".*\.(q_proj|v_proj)", QUERY, true),
            (r".*\.(q|v)", QUERY, false),
            (r"q_proj", QUERY, false),
            (r"^model\.layers\.\d+\.self_attn\.[qkvo]_proj$", QUERY, true),
            (r"model\.layers\.\d\..*", QUERY, false),
            (r".*layers\.(?!0\.)\d+\..*_proj", QUERY, true),
            (r".*layers\.(?!11\.)\d+\..*_proj", QUERY, false),
            (r".*(?<=attn\.)q_proj", QUERY, true),
            (r"(?P<all>.*)\.(?P<last>q_proj)", QUERY, true),
            (r"(?i).*\.Q_PROJ", QUERY, true),
            (r"a|ab", "ab", true),
            (
                r"(?:.*?(?:language|text).*?(?:q_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj)))",
                QUERY,
                true,
            ),
            (r"lm_head", "lm_head", true),
            (r".*layers\.1[0-9]{1}\..*", QUERY, true),
            (r".*\Z", QUERY, true),
        ] {
            let compiled = Expression::whole(expression).unwrap();
            assert_eq!(compiled.matches(text), expected, "{expression} on {text}");
        }
    }

    #[test]
    fn a_damaged_expression_is_refused_and_an_endless_one_ends() {
        for damaged in ["(q_proj", "*", "[a", "(?P<n", r"(?P=x)"] {
            assert!(Expression::whole(damaged).is_err(), "{damaged}");
        }
        let endless = Expression::whole("(a+)+(b+)+(c+)+d").unwrap();
        assert!(!endless.matches(&"a".repeat(60)));
    }
}
