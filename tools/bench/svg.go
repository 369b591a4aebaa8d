package main

import (
	"bytes"
	"fmt"
	"math"
)

// Geometry of the chart in pixels.
const (
	chartLeft   = 210 // where the bars begin
	chartWidth  = 560 // of the bars' area
	chartRow    = 18
	chartTop    = 56
	chartBar    = 11
	chartMargin = 70
)

// The ratios that the chart spans, on a logarithmic scale.
const (
	chartMin = 0.1
	chartMax = 50
)

// x is the place of a ratio.
func x(ratio float64) float64 {
	r := math.Min(math.Max(ratio, chartMin), chartMax)
	return chartLeft + chartWidth*math.Log(r/chartMin)/math.Log(chartMax/chartMin)
}

// chart draws the ratios of all sections as bars from 1.0, with a mark at each target.
func chart(s *store) []byte {
	var b bytes.Buffer
	y := chartTop
	for _, sec := range sections {
		rows := s.rows(sec.name)
		if sec.name == "memory" || len(rows) == 0 {
			continue
		}
		base := rows[0].Base
		fmt.Fprintf(&b, `<text x="8" y="%d" font-weight="bold">%s, times %s</text>`+"\n", y+chartBar, sec.title, base)
		y += chartRow
		for i := range rows {
			drawRow(&b, &rows[i], y)
			y += chartRow
		}
		y += chartRow / 2
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", chartLeft+chartWidth+chartMargin, y+10)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&out, `<text x="8" y="18" font-size="14">Husk (systrap): ratio per operation, logarithmic; bars left of 1.0 are faster, ticks are targets</text>`+"\n")
	for _, r := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50} {
		colour, width := "#dddddd", 1.0
		if r == 1 {
			colour, width = "#000000", 1.5
		}
		fmt.Fprintf(&out, `<line x1="%.1f" y1="44" x2="%.1f" y2="%d" stroke="%s" stroke-width="%.1f"/>`+"\n", x(r), x(r), y, colour, width)
		fmt.Fprintf(&out, `<text x="%.1f" y="38" text-anchor="middle">%v</text>`+"\n", x(r), r)
	}
	out.Write(b.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// drawRow draws one bar: green where the target is met, red where not, grey where there is none.
func drawRow(b *bytes.Buffer, r *result, y int) {
	v, ok := r.Ratios[systrap]
	if !ok {
		return
	}
	colour := "#999999"
	switch r.verdict() {
	case "met":
		colour = "#3a9d5d"
	case "missed":
		colour = "#c8553d"
	}
	from, to := math.Min(x(1), x(v)), math.Max(x(1), x(v))
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, chartLeft-6, y+chartBar-1, r.Row)
	fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, from, y, math.Max(to-from, 1), chartBar, colour)
	if r.Target > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#1f4e9c" stroke-width="2"/>`, x(r.Target), y-2, x(r.Target), y+chartBar+2)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d">%.2fx</text>`+"\n", chartLeft+chartWidth+6, y+chartBar-1, v)
}
