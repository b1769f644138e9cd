package inventory

// Floor is the capacity that a region keeps while servers are removed on purpose: Mbit/s (floor = 1000) or a share of the
// region's capacity (floor = "50%"). The zero value is no floor.
type Floor struct {
	Mbps    int `json:"mbps,omitempty"`
	Percent int `json:"percent,omitempty"` // 1 to 100
}

// Of returns the floor in Mbit/s for a region with this total capacity, rounded up.
func (f Floor) Of(total int) int {
	if f.Percent > 0 {
		return (total*f.Percent + 99) / 100
	}
	return f.Mbps
}
