// Package figures holds what a benchmark has measured, and writes it down: as
// Markdown tables, as JSON and as plots.
//
// Promises:
//   - A ratio compares two values of one round, never two medians: what slows a
//     machine down for a while slows down both. (TestRatiosStayInTheirRound)
//   - A goal is met or missed by the median. A row that failed, or in which larder
//     has no value, has neither. (TestVerdicts)
//   - The table, the JSON and the plot say the same, and the same figures give the
//     same bytes. (TestReport, TestGrowth)
//   - A curve says which line and which power law its medians follow, and what shape
//     it has by the rule at [Shape], which looks at all rounds. (TestFits,
//     TestShapeLooksAtAllRounds, TestFitOfLittle)
package figures
