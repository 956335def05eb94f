"""The models and what surrounds them: plain classes that know neither Ray nor HTTP."""
