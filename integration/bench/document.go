package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/larder-project/larder/integration/bench/figures"
)

// Marks around what the program writes into a document.
const (
	markBegin = "<!-- figures: begin -->\n"
	markEnd   = "<!-- figures: end -->\n"
)

// write writes the report where the options say, and its table to out.
func write(report *figures.Report, o options, out io.Writer) error {
	if err := report.WriteMarkdown(out); err != nil {
		return err
	}
	if o.report != "" {
		if err := os.MkdirAll(o.report, 0o755); err != nil {
			return fmt.Errorf("folder of the report: %w", err)
		}
		base := filepath.Join(o.report, "figures")
		if err := errors.Join(create(base+".md", report.WriteMarkdown), create(base+".json", report.WriteJSON), create(base+".svg", report.WritePlot),
			createGrowth(filepath.Join(o.report, "growth.svg"), report)); err != nil {
			return err
		}
	}
	if o.document == "" {
		return nil
	}
	base := strings.TrimSuffix(o.document, ".md")
	withPlot := func(w io.Writer) error {
		links := fmt.Sprintf("![ratios](%s.svg)\n\n", filepath.Base(base))
		if report.Grows() {
			links += fmt.Sprintf("![growth](%s-growth.svg)\n\n", filepath.Base(base))
		}
		if _, err := io.WriteString(w, links); err != nil {
			return err
		}
		return report.WriteMarkdown(w)
	}
	return errors.Join(insert(o.document, withPlot), create(base+".json", report.WriteJSON), create(base+".svg", report.WritePlot),
		createGrowth(base+"-growth.svg", report))
}

// createGrowth makes a file of the curves, if there are any.
func createGrowth(path string, report *figures.Report) error {
	if !report.Grows() {
		return nil
	}
	return create(path, report.WriteGrowth)
}

// create makes a file of what is written.
func create(path string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// insert replaces what stands between the marks of a document.
func insert(path string, write func(io.Writer) error) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("document: %w", err)
	}
	head, rest, found := bytes.Cut(text, []byte(markBegin))
	_, foot, ends := bytes.Cut(rest, []byte(markEnd))
	if !found || !ends {
		return fmt.Errorf("document %s: no %s with a %s behind it", path, strings.TrimSpace(markBegin), strings.TrimSpace(markEnd))
	}
	return create(path, func(w io.Writer) error {
		_, err := w.Write(append(head, markBegin...))
		if err == nil {
			err = write(w)
		}
		if err == nil {
			_, err = w.Write(append([]byte(markEnd), foot...))
		}
		return err
	})
}
