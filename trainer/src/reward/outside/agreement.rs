//! The agreement of a judge with exact match.

/// Share of equal decisions, and Cohen's kappa (Cohen 1960), which is 0 for the agreement of chance and 1 for full
/// agreement. Both are NaN without decisions; kappa is NaN if both always decide alike, since chance then explains all.
pub fn agreement(decisions: &[(bool, bool)]) -> (f64, f64) {
    let count = decisions.len() as f64;
    let share = |holds: &dyn Fn(&(bool, bool)) -> bool| {
        decisions.iter().filter(|decision| holds(decision)).count() as f64 / count
    };
    let observed = share(&|(first, second)| first == second);
    let (first, second) = (share(&|(first, _)| *first), share(&|(_, second)| *second));
    let by_chance = first * second + (1.0 - first) * (1.0 - second);
    (observed, if by_chance < 1.0 { (observed - by_chance) / (1.0 - by_chance) } else { f64::NAN })
}
