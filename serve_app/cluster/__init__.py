"""Ray and HAProxy: handles, scaling, environment."""
