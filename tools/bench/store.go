package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
)

// result is a row of a table.
type result struct {
	Section, Row, Unit string
	// Base is the column that ratios refer to; "" where Target is a value and no ratio.
	Base   string
	Target float64 // 0: nothing is promised
	// Values are medians; Ratios are medians over the rounds of the ratio to the base.
	Values, Ratios map[string]float64
	Rounds         int
}

// collector gathers the rounds of a row.
type collector struct {
	r      result
	rounds map[string][]float64
}

func newCollector(section, row, unit, base string, target float64) *collector {
	return &collector{result{Section: section, Row: row, Unit: unit, Base: base, Target: target}, map[string][]float64{}}
}

func (c *collector) add(column string, v float64) { c.rounds[column] = append(c.rounds[column], v) }

// result takes the medians. Round by round, a ratio compares what was measured in the same moment.
func (c *collector) result() result {
	c.r.Values, c.r.Ratios = map[string]float64{}, map[string]float64{}
	base := c.rounds[c.r.Base]
	for column, v := range c.rounds {
		c.r.Values[column] = median(v)
		c.r.Rounds = max(c.r.Rounds, len(v))
		var ratios []float64
		for i := range min(len(v), len(base)) {
			if base[i] > 0 {
				ratios = append(ratios, v[i]/base[i])
			}
		}
		if len(ratios) > 0 && column != c.r.Base {
			c.r.Ratios[column] = median(ratios)
		}
	}
	return c.r
}

// judged is the figure that the target is about, and whether there is one.
func (r *result) judged() (float64, bool) {
	figures := r.Values
	if r.Base != "" {
		figures = r.Ratios
	}
	v, ok := figures[systrap]
	return v, ok && r.Target > 0
}

func median(v []float64) float64 {
	v = append([]float64(nil), v...)
	sort.Float64s(v)
	if n := len(v); n%2 == 0 && n > 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// geomean is the geometric mean of the ratios of a section's rows, and their number.
func geomean(rows []result) (float64, int) {
	sum, n := 0.0, 0
	for i := range rows {
		if v := rows[i].Ratios[systrap]; v > 0 {
			sum += math.Log(v)
			n++
		}
	}
	return math.Exp(sum / float64(max(n, 1))), n
}

// store keeps results in a file.
type store struct {
	path    string
	results map[string]result // by section and row
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &store{filepath.Join(dir, "results.json"), map[string]result{}}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	return s, json.Unmarshal(text, &s.results)
}

// put keeps a result, at once: a run may be cut short.
func (s *store) put(r result) error {
	s.results[r.Section+"/"+r.Row] = r
	return s.save()
}

func (s *store) save() error {
	text, err := json.MarshalIndent(s.results, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.path, text, 0o644)
}

// order lists the rows of a section as they are defined.
func order(section string) (names []string) {
	switch section {
	case "startup":
		names = []string{"run /bin/true", "create+start+delete"}
	case "micro":
		for _, r := range microRows {
			names = append(names, r.name)
		}
	case "programs":
		for _, p := range programs {
			names = append(names, p.name)
		}
	}
	return names
}

// rows are the results of a section in order; rows that are defined no more are left out.
func (s *store) rows(section string) (rows []result) {
	if section == "memory" {
		for _, r := range s.results {
			if r.Section == section {
				rows = append(rows, r)
			}
		}
		sort.Slice(rows, func(i, j int) bool { return rows[i].Target < rows[j].Target })
		return rows
	}
	for _, name := range order(section) {
		if r, ok := s.results[section+"/"+name]; ok {
			rows = append(rows, r)
		}
	}
	return rows
}
