"""One offline HTML file that says where a model fails and why."""
