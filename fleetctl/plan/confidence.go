package plan

import "math"

// bounds are the one-sided exact bounds of Clopper and Pearson (1934) of a share, of which failed in attempts were seen: each is wrong
// with probability alpha at most. Nothing seen says nothing: 0 to 1.
func bounds(failed, attempts int, alpha float64) (lower, upper float64) {
	if attempts <= 0 {
		return 0, 1
	}
	failed = min(max(failed, 0), attempts)
	lower, upper = 0, 1
	if failed > 0 { // P(X >= failed | lower) = alpha
		lower = bisect(func(p float64) bool { return 1-binomial(failed-1, attempts, p) >= alpha })
	}
	if failed < attempts { // P(X <= failed | upper) = alpha
		upper = bisect(func(p float64) bool { return binomial(failed, attempts, p) <= alpha })
	}
	return lower, upper
}

// tail is the chance of so many failures in so many attempts, or more, at share p. That it is under alpha says as much as that the lower bound is over p.
func tail(failed, attempts int, p float64) float64 {
	if failed <= 0 {
		return 1
	}
	return beta(p, float64(failed), float64(attempts-failed+1))
}

// bisect finds the smallest share for which a statement that stays true has become true.
func bisect(is func(float64) bool) float64 {
	low, high := 0.0, 1.0
	for range 50 {
		if mid := (low + high) / 2; is(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// binomial is the chance of k or fewer of n at share p.
func binomial(k, n int, p float64) float64 {
	switch {
	case p <= 0:
		return 1
	case p >= 1:
		if k >= n {
			return 1
		}
		return 0
	}
	return beta(1-p, float64(n-k), float64(k+1))
}

// beta is the regularized incomplete beta function, by its continued fraction (DLMF 8.17.22) in the method of Lentz.
func beta(x, a, b float64) float64 {
	if x <= 0 {
		return 0
	}
	if x >= 1 {
		return 1
	}
	if x > (a+1)/(a+b+2) { // converges quickly on the other side
		return 1 - beta(1-x, b, a)
	}
	lab, _ := math.Lgamma(a + b)
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	front := math.Exp(lab-la-lb+a*math.Log(x)+b*math.Log1p(-x)) / a
	const tiny, enough, steps = 1e-300, 1e-14, 10000
	keep := func(v float64) float64 {
		if math.Abs(v) < tiny {
			return tiny
		}
		return v
	}
	f, c, d := 1.0, 1.0, 0.0
	for i := range steps {
		m := float64(i / 2)
		var term float64
		switch {
		case i == 0:
			term = 1
		case i%2 == 0:
			term = m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		default:
			term = -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		}
		d = 1 / keep(1+term*d)
		c = keep(1 + term/c)
		f *= c * d
		if math.Abs(1-c*d) < enough {
			break
		}
	}
	return front * (f - 1)
}
