package policies

import (
	"fmt"
	"math"
	"time"

	"mayfly/internal/tomlfile"
)

// Bounds of a train and of the schedule.
const (
	maxCanaries  = 100
	maxSteps     = 10
	maxTrainBake = 24 * time.Hour

	// MaxErrors is the largest share of failed rotations that a train takes for good.
	MaxErrors     = 0.5
	minConfidence = 0.8
	maxConfidence = 0.999
	// DefaultConfidence is the confidence of a train that names none.
	DefaultConfidence = 0.95

	minEvery = 10 * time.Second
	maxEvery = 24 * time.Hour
)

// IsZero reports whether there is no train.
func (t Train) IsZero() bool {
	return t.Canaries == 0 && len(t.Steps) == 0 && t.Bake == 0 && t.MaxErrors == 0 && t.Confidence == 0
}

func (r Rotation) checkTrain(w where) error {
	const path = "rotation.train"
	t := r.Train
	if t.IsZero() {
		return nil
	}
	if t.Canaries < 0 || t.Canaries > maxCanaries {
		return tomlfile.At(path+".canaries", "canaries = 2", "train.canaries is %d: 0 to %d", t.Canaries, maxCanaries)
	}
	if t.Canaries > w.users {
		return tomlfile.At(path+".canaries", fmt.Sprintf("canaries = %d at most", w.users), "train.canaries is %d, each in another region, and %d regions have servers with users", t.Canaries, w.users)
	}
	if len(t.Steps) == 0 || len(t.Steps) > maxSteps {
		return tomlfile.At(path+".steps", "for example steps = [1, 10, 50, 100]", "train.steps has %d steps: 1 to %d", len(t.Steps), maxSteps)
	}
	for i, s := range t.Steps {
		at := fmt.Sprintf("%s.steps[%d]", path, i)
		if s < 1 || s > 100 {
			return tomlfile.At(at, "for example steps = [1, 10, 50, 100]", "a step of %d percent: 1 to 100", s)
		}
		if i > 0 && s <= t.Steps[i-1] {
			return tomlfile.At(at, "for example steps = [1, 10, 50, 100]", "the step to %d percent comes after the one to %d: they rise", s, t.Steps[i-1])
		}
	}
	if last := len(t.Steps) - 1; t.Steps[last] != 100 {
		return tomlfile.At(fmt.Sprintf("%s.steps[%d]", path, last), "the last step is 100", "the last step is %d percent, so the release would never be everywhere", t.Steps[last])
	}
	if b := t.Bake.Std(); b < 0 || b > maxTrainBake {
		return tomlfile.At(path+".bake", fmt.Sprintf("from 0s to %s", Duration(maxTrainBake)), "train.bake is %s", t.Bake)
	}
	if math.IsNaN(t.MaxErrors) || t.MaxErrors < 0 || t.MaxErrors > MaxErrors {
		return tomlfile.At(path+".max_errors", "max_errors = 0.05 is five in a hundred", "train.max_errors is %g: 0 to %g", t.MaxErrors, MaxErrors)
	}
	if c := t.Confidence; c != 0 && !(c >= minConfidence && c <= maxConfidence) {
		return tomlfile.At(path+".confidence", fmt.Sprintf("leave it out for %g", DefaultConfidence), "train.confidence is %g: %g to %g", c, minConfidence, maxConfidence)
	}
	return nil
}

func (r Rotation) checkSchedule() error {
	s := r.Schedule
	if s == (Schedule{}) {
		return nil
	}
	if e := s.Every.Std(); e < minEvery || e > maxEvery {
		return tomlfile.At("rotation.schedule.every", fmt.Sprintf("from %s to %s; without [rotation.schedule] nothing begins by itself", Duration(minEvery), Duration(maxEvery)), "schedule.every is %s", s.Every)
	}
	if s.Every >= r.MaxAge {
		return tomlfile.At("rotation.schedule.every", "every = \"5m\"", "schedule.every is %s, and max_age only %s: servers would end themselves between two runs", s.Every, r.MaxAge)
	}
	if s.Alert >= r.MaxAge {
		return tomlfile.At("rotation.schedule.alert", "leave it out for half of the server's lead", "schedule.alert is %s, and max_age only %s: every server would be in danger all its life", s.Alert, r.MaxAge)
	}
	return nil
}
