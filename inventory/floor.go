package inventory

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mayfly/internal/tomlfile"
)

// Floor is the capacity that a region keeps while servers are removed on purpose: Mbit/s (floor = 1000) or a share of the
// region's capacity (floor = "50%"). The zero value is no floor. In TOML and JSON it is text.
type Floor struct {
	Mbps    int
	Percent int // 1 to 100
}

// Of returns the floor in Mbit/s for a region with this total capacity, rounded up.
func (f Floor) Of(total int) int {
	if f.Percent > 0 {
		return (total*f.Percent + 99) / 100
	}
	return f.Mbps
}

// String returns the floor as fleet.toml has it.
func (f Floor) String() string {
	if f.Percent > 0 {
		return strconv.Itoa(f.Percent) + "%"
	}
	return strconv.Itoa(f.Mbps)
}

// MarshalText writes "1000" or "50%".
func (f Floor) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads "1000" or "50%"; TOML may also give the integer 1000.
func (f *Floor) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(string(text), "%")
	n, err := strconv.Atoi(number)
	if err != nil || strconv.Itoa(n) != number {
		return errors.New(`a floor is Mbit/s (1000) or a share ("50%")`)
	}
	switch {
	case percent && (n < 1 || n > 100):
		return fmt.Errorf("a floor's share is 1%% to 100%%, not %d%%", n)
	case !percent && (n < 0 || n > MaxCapacity):
		return fmt.Errorf("a floor is 0 to %d Mbit/s, not %d", MaxCapacity, n)
	case percent:
		*f = Floor{Percent: n}
	default:
		*f = Floor{Mbps: n}
	}
	return nil
}

// CheckFloors refuses a floor that could not be kept while every server is rebuilt in its turn, even one at a time: if a
// server's region falls under its floor without that server, the server can never be rotated and would grow too old. Spares may stand
// in for it: how many of them at once, and what the policy asks beside this, package fleetctl/plan proves.
func CheckFloors(f Fleet) error {
	regionOf, total := f.RackRegions(), f.Capacities()
	largest, spare := map[string]Server{}, map[string]int{} // by region; of equals, the first
	for _, s := range f.Servers {
		switch r := regionOf[s.Rack]; {
		case s.Spare:
			spare[r] += s.Capacity
		case s.Counted() && s.Capacity > largest[r].Capacity:
			largest[r] = s
		}
	}
	for i, r := range f.Regions {
		sum, biggest := total[r.Name], largest[r.Name]
		floor, left := r.Floor.Of(sum), sum-biggest.Capacity+spare[r.Name]
		if floor <= left && floor <= sum {
			continue
		}
		path := fmt.Sprintf("region[%d].floor", i)
		if floor > sum {
			return tomlfile.At(path, "lower the floor or add servers",
				"region %q can never keep its floor: its servers have %d Mbit/s, the floor is %s", r.Name, sum, floorText(r.Floor, floor))
		}
		mend := fmt.Sprintf("lower the floor to %d at most, or add a server to the region", left)
		from := fmt.Sprintf("%d - %d", sum, biggest.Capacity)
		if spare[r.Name] > 0 {
			from += fmt.Sprintf(" + %d of spares", spare[r.Name])
		}
		if left == 0 {
			mend = "leave the floor out, or add a server to the region"
		}
		return tomlfile.At(path, mend, "region %q can never rebuild server %q: %s = %d Mbit/s would be left, the floor is %s",
			r.Name, biggest.Name, from, left, floorText(r.Floor, floor))
	}
	return nil
}

// floorText names a floor with the sum it comes to.
func floorText(f Floor, mbps int) string {
	if f.Percent > 0 {
		return fmt.Sprintf("%d (%s)", mbps, f)
	}
	return strconv.Itoa(mbps)
}
