package main

import (
	"fmt"
	"io"
	"sort"
	"strings"
)

// table is a set of figures: a row per operation, a column per runtime; ratios are to the first column.
type table struct {
	title, unit string
	columns     []string
	rows        []row
}

type row struct {
	name   string
	values []float64 // NaN-free; negative: not measured
}

func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s (%s; in parentheses: times %s)\n%-22s", t.title, t.unit, t.columns[0], "")
	for _, c := range t.columns {
		fmt.Fprintf(w, "%20s", c)
	}
	fmt.Fprintln(w)
	for _, r := range t.rows {
		fmt.Fprintf(w, "%-22s", r.name)
		for i := range r.values {
			fmt.Fprintf(w, "%20s", r.cell(i))
		}
		fmt.Fprintln(w)
	}
}

func (r row) cell(i int) string {
	v := r.values[i]
	switch {
	case v < 0:
		return "-"
	case i == 0 || r.values[0] <= 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2f (%.2fx)", v, v/r.values[0])
}

func (t *table) markdown(w io.Writer) {
	fmt.Fprintf(w, "\n## %s\n\n%s; in parentheses: times %s.\n\n| |%s|\n|---|%s\n", t.title, t.unit, t.columns[0], strings.Join(t.columns, "|"), strings.Repeat("---:|", len(t.columns)))
	for _, r := range t.rows {
		fmt.Fprintf(w, "|%s|", r.name)
		for i := range r.values {
			fmt.Fprintf(w, "%s|", r.cell(i))
		}
		fmt.Fprintln(w)
	}
}

func median(v []float64) float64 {
	sort.Float64s(v)
	if len(v) == 0 {
		return -1
	}
	return v[len(v)/2]
}
